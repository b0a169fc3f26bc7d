"""Migrations: run by ``airflow db migrate``, only checked when a server starts, so servers never race."""

from __future__ import annotations

from pathlib import Path

from airflow.utils.db_manager import BaseDBManager
from alembic.config import Config
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from edge_otel.errors import DatabaseUnavailable, EdgeError, NotMigrated
from edge_otel.models.session import new_session
from edge_otel.models.tables import Base

_MIGRATIONS = Path(__file__).parent / "migrations"


class EdgeDBManager(BaseDBManager):
    """Our tables, for Airflow's ``db`` commands."""

    metadata = Base.metadata
    version_table_name = "alembic_version_edge_otel"
    migration_dir = str(_MIGRATIONS)
    alembic_file = str(_MIGRATIONS / "alembic.ini")
    supports_table_dropping = True

    def create_db_from_orm(self) -> None:
        """Build a new database by the migrations too, so that there is one way to a schema."""
        self.upgradedb(use_migration_files=True)

    def get_alembic_config(self) -> Config:
        """Return the configuration, with the session's own database (not always that of the settings)."""
        config: Config = super().get_alembic_config()
        url = self.session.get_bind().engine.url.render_as_string(hide_password=False)
        config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
        return config


def check_migrated(session: Session) -> None:
    """Raise NotMigrated unless the tables are those of this version."""
    if not EdgeDBManager(session).check_migration():
        raise NotMigrated


DatabaseFailure = DBAPIError
"""What a query raises when the database refuses it or cannot be reached."""


def explain(failure: DBAPIError) -> EdgeError:
    """Return what a failed query means to a caller: usually that the database is away or not migrated."""
    try:
        with new_session() as session:
            check_migrated(session)
    except NotMigrated as not_migrated:
        return not_migrated
    except DBAPIError:
        return DatabaseUnavailable()
    return DatabaseUnavailable() if passing(failure) else EdgeError("The database refused a query.")


def passing(failure: DBAPIError) -> bool:
    """Return whether the same query may succeed later: a lost connection, a deadlock, a lock that was waited for in
    vain."""
    return isinstance(failure, OperationalError) or bool(failure.connection_invalidated)
