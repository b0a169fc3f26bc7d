"""Measures one side with a whole Airflow of its own, and prints what it found as JSON on the last line."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from demo.cluster import Cluster
from demo.process import Process, free_port
from tests.bench import crowd, logs, starts
from tests.bench.edge3_load import POLL_INTERVAL, Edge3Load
from tests.bench.findings import Findings
from tests.bench.http_load import Pace, shared_secret
from tests.bench.mapped import DAG, run_mapped
from tests.bench.sides import (
    EDGE3,
    OURS,
    SIDES,
    Side,
    connect,
    create_group_token,
    empty,
    insert_finished,
    insert_queued,
    insert_workers,
    registered,
    worker_starter,
)
from tests.bench.sizes import Sizes
from tests.bench.statements import StatementLog

SPREAD = 240.0
"""Seconds over which the retained jobs ended: within the five minutes for which both sides keep them."""
SETTLED = 10.0
"""Seconds after registration at which an idle worker's memory is read, or its statements are counted."""
OPTIONS = {"AIRFLOW__EDGE__HEARTBEAT_INTERVAL": "30", "AIRFLOW__EDGE__JOB_POLL_INTERVAL": "5", **crowd.OPTIONS}
"""The defaults of both sides, but for bounds of Airflow's."""


class Site:
    """One side's Airflow, and what is measured of it."""

    def __init__(self, side: Side, database: str, postgres_log: Path, folder: Path, sizes: Sizes) -> None:
        self._side = side
        self._sizes = sizes
        dags = Path(__file__).with_name("dags")
        self.cluster = Cluster(
            folder, database=database, port=free_port(), dags=dags, otlp=None, executor=side.executor, options=OPTIONS
        )
        self._database = database
        self._connection = connect(database)
        self._statements = StatementLog(database, postgres_log)

    def stop(self) -> None:
        """End everything."""
        self._statements.close()
        self._connection.close()
        self.cluster.stop()

    def parts(self) -> dict[str, Callable[[Findings], None]]:
        """Return what can be measured, in this order."""
        return {
            "sync": self.sync,
            "heartbeats": self.heartbeats,
            "assignment": self.assignment,
            "idle": self.idle,
            "worker": self.worker,
            "start": self.start,
            "mapped": self.mapped,
            "logs": self.logs,
            "page": self.page,
            "crowd": self.crowd,
        }

    def sync(self, findings: Findings) -> None:
        """Time ``sync()`` while finished jobs are retained."""
        insert_finished(self._connection, self._side, self._sizes.finished, SPREAD)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "tests.bench.sync_time", self._side.executor],
                env={**self.cluster.env, "PYTHONPATH": str(Path.cwd())},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        finally:
            empty(self._connection, self._side)
        findings.figures["sync_ms"] = statistics.median(json.loads(done.stdout.strip().splitlines()[-1]))

    def heartbeats(self, findings: Findings) -> None:
        """Measure how many heartbeats a second one API process takes."""
        for name, pace in self._load().heartbeats().items():
            findings.figures[f"{name}_per_s"] = pace.per_second
            findings.details[name] = vars(pace)
        empty(self._connection, self._side)

    def assignment(self, findings: Findings) -> None:
        """Measure how many jobs a second are assigned and confirmed while many are queued."""
        load = self._load()
        insert_queued(self._connection, self._side, self._sizes.queued)
        try:
            paces: dict[str, Pace] = load.assignment()
        finally:
            empty(self._connection, self._side)
        for name, pace in paces.items():
            findings.figures[f"{name}_per_s"] = pace.per_second
            findings.details[name] = vars(pace)

    def idle(self, findings: Findings) -> None:
        """Count the statements that idle workers cause."""
        sizes = self._sizes
        load = self._load()
        try:
            with load.idle():
                time.sleep(SETTLED)
                with self._statements.counting() as counted:
                    time.sleep(sizes.idle_seconds)
        finally:
            empty(self._connection, self._side)
        minutes = sizes.idle_workers * sizes.idle_seconds / 60
        findings.figures["idle_statements"] = counted.total() / minutes
        findings.details["idle_statements"] = {kind: n / minutes for kind, n in counted.most_common(12)}

    def _load(self) -> Any:
        self._need_api()
        if self._side is EDGE3:
            return Edge3Load(self.cluster.url, shared_secret(self.cluster.keys.jwt), self._sizes)
        from tests.bench.channel_load import ChannelLoad

        return ChannelLoad(self.cluster.edge_url, create_group_token(self.cluster), self._sizes)

    def _need_api(self) -> None:
        if "api-server" not in self.cluster.processes:
            self.cluster.start_api_server()
            self.cluster.wait_for_api()

    def worker(self, findings: Findings) -> None:
        """Time a real worker's start, and read its memory when it is idle."""
        self._need_api()
        start = worker_starter(self._side, self.cluster)
        began = time.monotonic()
        worker = start()
        self.cluster.wait(lambda: registered(self._connection, self._side), "the worker to register", 120)
        findings.figures["start_to_registered_s"] = time.monotonic() - began
        time.sleep(SETTLED)
        self.cluster.check()
        findings.figures |= idle_memory(worker)

    def _need_everything(self) -> None:
        self._need_api()
        if not self.cluster.workers:
            worker_starter(self._side, self.cluster)()
        for name in ("scheduler", "dag-processor"):
            if name not in self.cluster.processes:
                self.cluster.start_airflow(name, name)

    def start(self, findings: Findings) -> None:
        """Time how long a task waits for its process on an idle worker."""
        self._need_everything()
        ours = self._side is OURS
        runs, phase = (self._sizes.starts_ours, 1.0) if ours else (self._sizes.starts_edge3, POLL_INTERVAL)
        found = starts.measure(self._side, self.cluster, self._connection, runs, phase)
        spread = starts.summary(found)
        findings.figures |= {"start_p50_s": spread["waits_p50_s"], "start_p99_s": spread["waits_p99_s"]}
        findings.details["start"] = spread

    def mapped(self, findings: Findings) -> None:
        """Time a run of mapped tasks, by Airflow's own account."""
        self._need_everything()
        self.cluster.wait(lambda: self.cluster.api.dag_exists(DAG), "the DAG", 120)
        run_mapped(self.cluster, 8)
        _, findings.figures["mapped_64_s"] = run_mapped(self.cluster, self._sizes.mapped)

    def crowd(self, findings: Findings) -> None:
        """Measure many sleeping tasks on one worker, which has a slot for each."""
        for name in list(self.cluster.workers):
            self.cluster.end(name)
        worker = worker_starter(self._side, self.cluster, self._sizes.crowd)()
        self._need_everything()
        crowd.measure(self.cluster, worker, self._sizes.crowd, findings)

    def logs(self, findings: Findings) -> None:
        """Measure what shipping logs achieves."""
        self._need_api()
        logs.measure(self._side, self.cluster, self._database, self._sizes, findings)

    def page(self, findings: Findings) -> None:
        """Time the page of a large fleet in a browser."""
        self._need_everything()
        self.cluster.wait(lambda: self.cluster.api.dag_exists(DAG), "the DAG", 120)
        # Nobody looks whether these workers are heard, and purges these jobs.
        for name in ("scheduler", "dag-processor", *self.cluster.workers):
            self.cluster.end(name)
        empty(self._connection, self._side)
        insert_workers(self._connection, self._side, self._sizes.page_workers)
        insert_finished(self._connection, self._side, self._sizes.page_jobs, SPREAD)
        with self._connection.cursor() as cursor:
            cursor.execute(f"UPDATE {self._side.job_table} SET dag_id = %s", [DAG])
        side = next(name for name, one in SIDES.items() if one is self._side)
        command = [os.environ["BENCH_PYTHON"], "-m", "tests.bench.page_times", side, self.cluster.url]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        finally:
            empty(self._connection, self._side)
        findings.figures |= json.loads(done.stdout.strip().splitlines()[-1])


def idle_memory(worker: Process) -> dict[str, float]:
    """Return RSS and PSS, in MB, of a worker with its children."""
    tree = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    memory = [process.memory_full_info() for process in tree]
    return {
        "idle_rss_mb": sum(part.rss for part in memory) / 1e6,
        "idle_pss_mb": sum(part.pss for part in memory) / 1e6,
    }


def main() -> None:
    """Measure the parts that are asked for."""
    parser = ArgumentParser()
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("database")
    parser.add_argument("postgres_log", type=Path)
    parser.add_argument("parts", help="names with commas between")
    parser.add_argument("sizes", type=json.loads, help="JSON")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="edge-bench-"))
    findings = Findings(arguments.side)
    site = Site(SIDES[arguments.side], arguments.database, arguments.postgres_log, place, Sizes(**arguments.sizes))
    try:
        site.cluster.migrate()
        for name, part in site.parts().items():
            if name in arguments.parts.split(","):
                findings.attempt(name, part)
    finally:
        site.stop()
        if not findings.failed:
            shutil.rmtree(place, ignore_errors=True)
        print(findings.as_json())


if __name__ == "__main__":
    main()
