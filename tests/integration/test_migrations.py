"""Migrations: they make the tables that the code describes, on every database, and touch nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.orm import Session

from demo.environment import Secrets, bare, central
from edge_otel.errors import NotMigrated
from edge_otel.models.database import EdgeDBManager, check_migrated
from edge_otel.models.tables import Base

OURS = {*Base.metadata.tables, EdgeDBManager.version_table_name}

# Names and some columns of edge3 5.1.0's tables, with rows as its users have them.
EDGE3_TABLES = {
    "edge_worker": "worker_name VARCHAR(64) PRIMARY KEY, state VARCHAR(20)",
    "edge_job": "dag_id VARCHAR(250), task_id VARCHAR(250), state VARCHAR(20)",
    "edge_logs": "dag_id VARCHAR(250), log_chunk_data VARCHAR(250)",
    "alembic_version_edge3": "version_num VARCHAR(32) PRIMARY KEY",
}


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def empty(request, tmp_path):
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/airflow.db"
    return request.getfixturevalue(
        "postgres_server" if request.param == "postgresql" else "mariadb_server"
    ).new_database()


@pytest.fixture
def engine(empty):
    """An engine on an empty database."""
    engine = create_engine(empty)
    yield engine
    engine.dispose()


def tables(engine):
    """Return the names of the tables that are there."""
    return set(inspect(engine).get_table_names())


def migrate(engine):
    """Migrate as ``airflow db migrate`` does for a database manager."""
    with Session(engine) as session:
        EdgeDBManager(session).initdb()


def add_edge3(engine):
    """Create tables as edge3 has them, each with a row."""
    with engine.begin() as connection:
        for table, columns in EDGE3_TABLES.items():
            connection.execute(text(f"CREATE TABLE {table} ({columns})"))
            values = ", ".join("'kept'" for _ in columns.split(", "))
            connection.execute(text(f"INSERT INTO {table} VALUES ({values})"))


def rows_of_edge3(engine):
    """Return what is in them."""
    with engine.connect() as connection:
        return {table: connection.execute(text(f"SELECT * FROM {table}")).all() for table in EDGE3_TABLES}


def test_migrations_make_what_the_code_describes(engine):
    migrate(engine)
    assert tables(engine) == OURS
    with engine.connect() as connection:
        options = {"version_table": EdgeDBManager.version_table_name, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_migrating_again_changes_nothing(engine):
    migrate(engine)
    migrate(engine)
    with Session(engine) as session:
        EdgeDBManager(session).upgradedb()
        check_migrated(session)


def test_a_downgrade_removes_our_tables_and_no_others(engine):
    add_edge3(engine)
    migrate(engine)
    with Session(engine) as session:
        command.downgrade(EdgeDBManager(session).get_alembic_config(), "base")
    assert tables(engine) == {*EDGE3_TABLES, EdgeDBManager.version_table_name}


def test_tables_of_edge3_in_the_same_database_are_not_touched(engine):
    add_edge3(engine)
    before = rows_of_edge3(engine)
    migrate(engine)
    assert tables(engine) == OURS | set(EDGE3_TABLES)
    assert rows_of_edge3(engine) == before
    with Session(engine) as session, engine.begin() as connection:
        EdgeDBManager(session).drop_tables(connection)
    assert tables(engine) == set(EDGE3_TABLES)
    assert rows_of_edge3(engine) == before


def test_missing_and_old_tables_are_an_error_that_says_what_to_do(engine):
    with Session(engine) as session, pytest.raises(NotMigrated, match=r"Run `airflow db migrate`"):
        check_migrated(session)
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {EdgeDBManager.version_table_name} SET version_num = '0000'"))
    with Session(engine) as session, pytest.raises(NotMigrated):
        check_migrated(session)


def test_the_sql_of_the_migrations_can_be_printed(engine, capsys):
    with Session(engine) as session:
        EdgeDBManager(session).upgradedb(show_sql_only=True)
    printed = capsys.readouterr().out
    assert all(f"CREATE TABLE {table}" in printed for table in OURS)
    assert tables(engine) == set()


# Airflow itself needs the C library of MySQL, which is not worth building for this.
@pytest.mark.parametrize("empty", ["sqlite", "postgresql"], indirect=True)
def test_airflow_migrates_our_tables_with_its_own(empty, engine, tmp_path):
    add_edge3(engine)
    before = rows_of_edge3(engine)
    home = tmp_path / "home"
    env = central(
        bare("migrations"),
        home=home,
        dags=tmp_path,
        database=empty,
        port=1,
        executor="edge_otel.executor.EdgeExecutor",
        keys=Secrets(),
    )
    run_migrations(env, tmp_path / "first.log")
    assert tables(engine) > OURS | {"dag_run", "task_instance"}
    if empty.startswith("postgresql"):
        # Two at once, as of two schedulers that start: on tables of Airflow's that are there, since Airflow itself
        # may refuse one of two that make its own.
        with Session(engine) as session, engine.begin() as connection:
            EdgeDBManager(session).drop_tables(connection)
        assert not tables(engine) & OURS
        run_migrations(env, tmp_path / "one.log", tmp_path / "other.log")
    with Session(engine) as session:
        check_migrated(session)
    assert rows_of_edge3(engine) == before


def run_migrations(env: dict[str, str], *logs: Path) -> None:
    """Run ``airflow db migrate`` once for each log, at once, to success."""
    migrations = [start_migration(env, log) for log in logs]
    codes = [one.wait(240) for one in migrations]
    assert codes == [0] * len(logs), "\n".join(log.read_text()[-3000:] for log in logs)


def start_migration(env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start ``airflow db migrate``."""
    with log.open("wb") as output:
        command = [sys.executable, "-m", "airflow", "db", "migrate"]
        return subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)
