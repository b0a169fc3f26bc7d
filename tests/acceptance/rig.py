"""The site under test: a cluster, what its tasks left in the ledger, and what its tables say."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
import sqlalchemy as sa

from demo.airflow_api import UNFINISHED
from demo.cluster import Cluster
from demo.edge import EdgeWorker, create_token
from demo.otlp import Store
from demo.process import with_environment

Value = TypeVar("Value")
LONG = 120.0
"""Seconds after which something that takes a few has failed to come."""


class Rig:
    """One running central site, and the means to look at everything from outside."""

    def __init__(self, cluster: Cluster, database: str, spans: Store) -> None:
        self.cluster = cluster
        self.api = cluster.api
        self.spans = spans
        self.ledger_folder = cluster.folder / "ledger"
        self.ledger_folder.mkdir()
        self._token = create_token(cluster, "*")
        self._engine = sa.create_engine(database, poolclass=sa.NullPool)

    def wait(self, look: Callable[[], Value], what: str, timeout: float = LONG) -> Value:
        """Return the first truthy value of ``look``, while every component lives."""
        return self.cluster.wait(look, what, timeout)

    def trigger(self, dag_id: str, **conf: Any) -> str:
        """Start a run and return its id."""
        return self.api.trigger(dag_id, conf)

    def finish(self, dag_id: str, run_id: str, timeout: float = LONG) -> str:
        """Return the state in which the run ended."""

        def ended() -> str | None:
            state = self.api.run_state(dag_id, run_id)
            return None if state in UNFINISHED else state

        return self.wait(ended, f"{dag_id} {run_id} to end", timeout) or ""

    def release(self, run_id: str, index: int | None = None) -> None:
        """Let the gated tasks of a run go on, or one of them."""
        suffix = "go" if index is None else f"{index}.go"
        (self.ledger_folder / f"{run_id}.{suffix}").touch()

    def ledger(self, run_id: str) -> list[dict[str, Any]]:
        """Return what the tasks of a run recorded, in order."""
        file = self.ledger_folder / f"{run_id}.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def started(self, run_id: str) -> Counter[tuple[str, int, int]]:
        """Return how often each (task, map index, try) of a run started; anything but 1 is a fault."""
        entries = self.ledger(run_id)
        return Counter((entry["task"], entry["index"], entry["try"]) for entry in entries if entry["event"] == "start")

    def wait_started(self, run_id: str, count: int) -> None:
        """Return when this many starts are in the ledger."""
        self.wait(lambda: self.started(run_id).total() >= count, f"{count} tasks of {run_id} to start")

    def rows(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return the rows of a query on the site's database."""
        with self._engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(sa.text(query), parameters)]

    def worker_state(self, name: str) -> str | None:
        """Return what the central site thinks of a worker."""
        rows = self.rows("SELECT state FROM edge_otel_worker WHERE name = :name", name=name)
        return rows[0]["state"] if rows else None

    def wait_worker(self, name: str, *states: str) -> None:
        """Return when the worker is in one of these states."""
        self.wait(lambda: self.worker_state(name) in states, f"{name} to be {' or '.join(states)}")

    def jobs(self, run_id: str) -> list[dict[str, Any]]:
        """Return the jobs of a run as the central site stores them."""
        return self.rows("SELECT * FROM edge_otel_job WHERE run_id = :run_id", run_id=run_id)

    def admin(self, *arguments: str) -> str:
        """Run ``airflow edge workers …`` and return what it printed."""
        return self.cluster.airflow("edge", "workers", *arguments)

    def local(self, worker: EdgeWorker, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a local ``edge-worker`` command beside a daemon."""
        command = [str(part) for part in worker.command(*arguments)]
        return subprocess.run(command, env=self.cluster.base, capture_output=True, text=True, timeout=60, check=False)

    def new_worker(self, name: str, *, queues: str = "default", concurrency: int = 4) -> EdgeWorker:
        """Return a worker that is not started yet."""
        return EdgeWorker(self.cluster, name, token=self._token, queues=queues, concurrency=concurrency)

    @contextmanager
    def running(self, name: str, *, queues: str = "default", concurrency: int = 4) -> Iterator[EdgeWorker]:
        """Run a worker for the time of a ``with`` block, unless the test ends it itself."""
        worker = self.new_worker(name, queues=queues, concurrency=concurrency)
        worker.start()
        try:
            # Running at once, if a job has waited for it.
            self.wait_worker(name, "idle", "running")
            yield worker
            if name in self.cluster.workers:
                self.cluster.end(name)
        except BaseException:
            self.kill_site(worker)
            raise

    def kill_site(self, worker: EdgeWorker) -> None:
        """Kill the daemon and everything that it started, as a power cut would."""
        if worker.name in self.cluster.workers:
            self.cluster.forget(worker.name).kill()
        everything = with_environment("AIRFLOW_HOME", worker.home)
        for process in everything:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(everything, timeout=10)

    def daemon_log(self, name: str) -> str:
        """Return the output of a component so far."""
        return Path(self.cluster.logs / f"{name}.log").read_text(errors="replace")
