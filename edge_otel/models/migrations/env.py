"""How alembic reaches the database, on its own version table."""

from typing import Any

from alembic import context
from sqlalchemy import create_engine, pool

from edge_otel.models.database import EdgeDBManager

_OPTIONS: dict[str, Any] = {
    "target_metadata": EdgeDBManager.metadata,
    "version_table": EdgeDBManager.version_table_name,
    "include_name": lambda name, kind, _: kind != "table" or name in EdgeDBManager.metadata.tables,
    # SQLite has no ALTER for most changes: alembic copies the table instead.
    "render_as_batch": True,
    "compare_type": True,
}

_url = context.config.get_main_option("sqlalchemy.url", "")

if context.is_offline_mode():
    context.configure(url=_url, literal_binds=True, **_OPTIONS)
    with context.begin_transaction():
        context.run_migrations()
else:
    _engine = create_engine(_url, poolclass=pool.NullPool)
    with _engine.connect() as _connection:
        context.configure(connection=_connection, **_OPTIONS)
        with context.begin_transaction():
            context.run_migrations()
