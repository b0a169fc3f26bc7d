"""What all tests share: real database servers."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from edge3_environment import edge3_interpreter
from mariadb_server import MariaDB, find_mariadbd
from tools import missing

from demo.postgres import Postgres

# Now, before anything imports Airflow: it reads these once, and keeps files there.
_airflow_home = tempfile.TemporaryDirectory(prefix="edge-airflow-")
os.environ["AIRFLOW_HOME"] = _airflow_home.name
os.environ["AIRFLOW__API_AUTH__JWT_SECRET"] = secrets.token_urlsafe(64)


def pytest_configure(config: pytest.Config) -> None:
    config.add_cleanup(_airflow_home.cleanup)
    config.addinivalue_line("markers", "acceptance: a real Airflow with real processes; takes minutes")


# First: xdist looks for the groups in its own.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what shares a long set-up, where tests run in several processes."""
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        shared = "rig" if "rig" in getattr(item, "fixturenames", ()) else parameters.get("database_url", item.path.name)
        item.add_marker(pytest.mark.xdist_group(shared))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A running PostgreSQL; ``new_database()`` returns the URL of an empty database."""
    server = Postgres()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def edge3_python() -> Path:
    """The interpreter of an environment with an unmodified edge3."""
    return edge3_interpreter()


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDB]:
    """A running MariaDB; ``new_database()`` returns the URL of an empty database."""
    program = find_mariadbd()
    if program is None:
        missing("mariadbd is not installed: apt-get install mariadb-server")
    folder = Path(tempfile.mkdtemp(prefix="edge-mariadb-"))
    server = MariaDB(program, folder)
    yield server
    server.stop()
    shutil.rmtree(folder)
