"""A site for the fleet page: an Airflow with a login, users of several roles, and three workers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
import sqlalchemy as sa
from sqlalchemy.orm import Session

from demo.cluster import Cluster
from demo.edge import EdgeWorker, create_token
from edge_otel.errors import NotInMaintenance
from edge_otel.models import wishes

TRACES = "http://traces.example/trace/{trace_id}"
ROLES = {"ann": "admin", "otto": "op", "ursula": "user", "vic": "viewer"}
PASSWORD = "correct horse"
WORKERS = {"press-1": "default,presses", "press-2": "default,presses", "oven-1": "default,ovens"}
"""Names, and the queues that each serves."""
LONG = 120.0


class FleetSite:
    """A running site, and what a test looks at beside the page."""

    def __init__(self, cluster: Cluster, database: str) -> None:
        self.cluster = cluster
        self._engine = sa.create_engine(database, poolclass=sa.NullPool)
        self._logins: dict[str, str] = {}
        self.token = create_token(cluster, "*")
        self.workers = {
            name: EdgeWorker(cluster, name, token=self.token, queues=queues, concurrency=4)
            for name, queues in WORKERS.items()
        }

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Yield a session on the site's database that commits at the end."""
        with Session(self._engine) as session, session.begin():
            yield session

    def start(self, name: str) -> None:
        """Start one of the workers, and return when it takes jobs."""
        self.workers[name].start()
        self.wait_worker(name, "idle", "running")

    def end_maintenance(self, name: str) -> None:
        """Return when a worker is in no maintenance."""
        with self.session() as session, suppress(NotInMaintenance):
            wishes.end_maintenance(session, name, datetime.now(UTC), by="tests")
        self.wait_worker(name, "idle", "running")

    def state(self, name: str) -> str | None:
        """Return what the central site thinks of a worker."""
        found = self.rows("SELECT state FROM edge_otel_worker WHERE name = :name", name=name)
        return str(found[0]["state"]) if found else None

    def wait_worker(self, name: str, *states: str) -> None:
        """Return when the worker is in one of these states."""
        self.cluster.wait(lambda: self.state(name) in states, f"{name} to be {' or '.join(states)}", LONG)

    def wait_status(self, name: str, look: Callable[[dict[str, Any]], bool], what: str) -> None:
        """Return when what the daemon at the site says of itself is as wanted: ``look`` gets it."""

        def said() -> bool:
            status = self.workers[name].status()
            return bool(status) and look(status)

        self.cluster.wait(said, f"{name} to say {what}", LONG)

    def rows(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return the rows of a query on the site's database."""
        with self._engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(sa.text(query), parameters)]

    def login(self, user: str) -> str:
        """Return a user's token, which Airflow's pages have as a cookie."""
        if user not in self._logins:
            asked = {"username": user, "password": PASSWORD}
            answer = requests.post(f"{self.cluster.url}/auth/token", json=asked, timeout=60)
            answer.raise_for_status()
            self._logins[user] = answer.json()["access_token"]
        return self._logins[user]

    def trigger(self, dag_id: str, **conf: Any) -> str:
        """Start a run of a DAG, and return its id."""
        body = {"logical_date": None, "conf": conf}
        bearer = {"Authorization": f"Bearer {self.login('ann')}"}
        path = f"{self.cluster.url}/api/v2/dags/{dag_id}/dagRuns"

        def triggered() -> str | None:
            answer = requests.post(path, json=body, headers=bearer, timeout=60)
            if answer.status_code == requests.codes.not_found:
                return None
            answer.raise_for_status()
            run_id: str = answer.json()["dag_run_id"]
            return run_id

        return self.cluster.wait(triggered, f"{dag_id} to be parsed", LONG) or ""

    def daemon_log(self, name: str) -> str:
        """Return the output of a worker's daemon so far."""
        return (self.cluster.logs / f"{name}.log").read_text(errors="replace")

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()


@contextmanager
def fleet_site(database: str, folder: Path, dags: Path, port: int) -> Iterator[FleetSite]:
    """Run the site: API server, scheduler, DAG processor, and the workers."""
    (folder / "ledger").mkdir()
    passwords = folder / "passwords.json"
    passwords.touch(mode=0o600)
    passwords.write_text(json.dumps(dict.fromkeys(ROLES, PASSWORD)))
    cluster = Cluster(
        folder,
        database=database,
        port=port,
        dags=dags,
        otlp=None,
        options={
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{role}" for user, role in ROLES.items()),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": os.fspath(passwords),
            "AIRFLOW__EDGE__TRACE_URL": TRACES,
        },
    )
    site = None
    try:
        cluster.migrate()
        cluster.start_api_server()
        cluster.start_airflow("scheduler", "scheduler")
        cluster.start_airflow("dag-processor", "dag-processor")
        cluster.wait_for_api()
        site = FleetSite(cluster, database)
        for worker in site.workers.values():
            worker.start()
        for name in site.workers:
            site.wait_worker(name, "idle")
        yield site
    finally:
        if site is not None:
            site.close()
        left = cluster.stop()
    assert left == [], "processes were left over after everything had been stopped"
