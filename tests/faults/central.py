"""The central side under faults: its components are started again when they end, as a service manager would."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psycopg2
import requests

from demo.cluster import Cluster, healthy
from demo.edge import create_token
from demo.postgres import Postgres
from demo.process import Ended, free_port
from demo.wait import wait_for

HERE = Path(__file__).parent
Value = TypeVar("Value")
LOOK = 0.3
"""Seconds between looks at what has ended."""
OPTIONS = {
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__CORE__PARALLELISM": "256",
    # The tasks of many sites begin at once.
    "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "64",
}


class Central:
    """PostgreSQL, API server, scheduler and DAG processor; any of them may be killed at any time."""

    def __init__(self, folder: Path) -> None:
        self.postgres = Postgres(folder / "postgres.log", outlives_kills=True)
        self.database = self.postgres.new_database()
        dags = folder / "dags"
        shutil.copytree(HERE / "dags", dags, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(HERE.parent / "acceptance" / "dags" / "ledger.py", dags)
        self.ledger = folder / "ledger"
        self.ledger.mkdir()
        self.cluster = Cluster(folder, database=self.database, port=free_port(), dags=dags, otlp=None, options=OPTIONS)
        self.logs = folder / "airflow" / "logs"
        self.one_fault = threading.Lock()
        """Held by who injects a fault here: one at a time."""
        self.restarts = 0
        """Components that ended by themselves and were started again."""
        self._starters: dict[str, Callable[[], Any]] = {
            "api-server": self.cluster.start_api_server,
            "scheduler": lambda: self.cluster.start_airflow("scheduler", "scheduler"),
            "dag-processor": lambda: self.cluster.start_airflow("dag-processor", "dag-processor"),
        }
        self._held: set[str] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper")

    def start(self, sites: int) -> None:
        """Start everything; return when the DAGs of this many sites are known."""
        self.cluster.migrate()
        for start in self._starters.values():
            start()
        self.cluster.wait_for_api()
        self._keeper.start()
        self.persist(
            lambda: all(self.cluster.api.dag_exists(f"chores_{number}") for number in range(sites)) or None,
            "the DAGs",
            120,
        )

    def kill(self, name: str, outage: float) -> None:
        """Kill a component, and start it again after ``outage`` seconds."""
        with self._lock:
            self._held.add(name)
            self.cluster.forget(name).kill()
        try:
            time.sleep(outage)
        finally:
            with self._lock:
                self._starters[name]()
                self._held.discard(name)
        if name == "api-server":
            wait_for(lambda: healthy(self.cluster.port), "the API server to answer", timeout=120)

    def kill_database(self, outage: float) -> None:
        """Kill PostgreSQL, all of its processes, and start it again after ``outage`` seconds."""
        self.postgres.process.kill()
        time.sleep(outage)
        self.postgres.start()

    def persist(self, call: Callable[[], Value], what: str, within: float) -> Value:
        """Return the first truthy answer, whatever of the central side is down meanwhile."""

        def attempt() -> Value | None:
            try:
                return call()
            except requests.HTTPError as refused:
                if refused.response is not None and refused.response.status_code in (401, 403):
                    self.cluster.api.forget_login()
                return None
            except (requests.RequestException, psycopg2.OperationalError, psycopg2.InterfaceError, KeyError):
                return None

        return wait_for(attempt, what, timeout=within)  # type: ignore[return-value]

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query on the database."""

        def ask() -> list[tuple[Any, ...]] | None:
            connection = psycopg2.connect(self.database.replace("+psycopg2", ""))
            try:
                with connection.cursor() as cursor:
                    cursor.execute(query, parameters)
                    return [None, *cursor.fetchall()]  # type: ignore[list-item]
            finally:
                connection.close()

        return self.persist(ask, "the database", 60)[1:]

    def new_token(self, worker: str) -> str:
        """Return a new token of a worker."""

        def create() -> str | None:
            with suppress(Ended):
                return create_token(self.cluster, worker)
            return None

        return self.persist(create, "a token", 120)

    def stop(self) -> list[str]:
        """End everything; return what was left over."""
        self._ended.set()
        if self._keeper.is_alive():
            self._keeper.join()
        left = self.cluster.stop()
        self.postgres.stop()
        return left

    def _keep(self) -> None:
        while not self._ended.wait(LOOK):
            with self._lock:
                for name, start in self._starters.items():
                    process = self.cluster.processes.get(name)
                    if name not in self._held and process is not None and process.exit_code is not None:
                        self.cluster.forget(name)
                        self.restarts += 1
                        start()
