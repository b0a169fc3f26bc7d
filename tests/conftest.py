"""What all tests share: real database servers."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from edge3_environment import edge3_interpreter
from mariadb_server import MariaDB, find_mariadbd
from tools import missing
from xdist.scheduler import LoadScopeScheduling

from demo.postgres import Postgres

OWN_SITE = {"test_demo.py", "test_faults.py", "test_log_fidelity.py", "test_log_replicas.py"}
"""Acceptance tests that start a site of their own."""

# Now, before anything imports Airflow: it reads these once, and keeps files there.
_airflow_home = tempfile.TemporaryDirectory(prefix="edge-airflow-")
os.environ["AIRFLOW_HOME"] = _airflow_home.name
os.environ["AIRFLOW__API_AUTH__JWT_SECRET"] = secrets.token_urlsafe(64)


def pytest_configure(config: pytest.Config) -> None:
    config.add_cleanup(_airflow_home.cleanup)
    config.addinivalue_line("markers", "acceptance: a real Airflow with real processes; takes minutes")


class Together(LoadScopeScheduling):
    """Where tests run in several processes, keeps those in one that share a long set-up: the acceptance tests' site, a
    database, or else their file."""

    def _split_scope(self, nodeid: str) -> str:
        path, _, test = nodeid.partition("::")
        if "/fleet_page/" in path:
            return "fleet page"
        if "/acceptance/" in path and Path(path).name not in OWN_SITE:
            return "site"
        database = re.search(r"[\[-](sqlite|postgresql|mysql)[\]-]", test)
        return database[1] if database else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return Together(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # What a test has logged may be no UTF-8, as which a report goes from one process to another.
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


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
