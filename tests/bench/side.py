"""Measures one side with a whole Airflow of its own, and prints the figures as JSON on the last line."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from datetime import datetime
from pathlib import Path

import psutil

from demo.cluster import Cluster
from demo.process import Process, free_port
from demo.wait import wait_for
from tests.bench.sides import SIDES, Side, connect, insert_finished, registered, worker_starter

DAG = "bench_mapped"
FINISHED_JOBS = 20_000
SPREAD = 240.0
"""Seconds over which the retained jobs ended: within the five minutes for which both sides keep them."""
SETTLED = 10.0
"""Seconds after registration at which an idle worker's memory is read."""


def measure(side: Side, database: str, folder: Path) -> dict[str, float]:
    """Return the side's figures."""
    defaults = {"AIRFLOW__EDGE__HEARTBEAT_INTERVAL": "30", "AIRFLOW__EDGE__JOB_POLL_INTERVAL": "5"}
    port = free_port()
    dags = Path(__file__).with_name("dags")
    executor = side.executor
    cluster = Cluster(folder, database=database, port=port, dags=dags, otlp=None, executor=executor, options=defaults)
    connection = connect(database)
    try:
        cluster.migrate()
        figures = {"sync_ms": sync_time(side, cluster, connection)}
        cluster.start_api_server()
        cluster.wait_for_api()
        start = worker_starter(side, cluster)
        began = time.monotonic()
        worker = start()
        cluster.wait(lambda: registered(connection, side), "the worker to register", 120)
        figures["start_to_registered_s"] = time.monotonic() - began
        figures |= idle_memory(worker, cluster)
        cluster.start_airflow("scheduler", "scheduler")
        cluster.start_airflow("dag-processor", "dag-processor")
        cluster.wait(lambda: cluster.api.dag_exists(DAG), "the DAG", 120)
        run(cluster, 8)
        figures["mapped_64_s"] = run(cluster, 64)
        return figures
    finally:
        connection.close()
        cluster.stop()


def sync_time(side: Side, cluster: Cluster, connection: object) -> float:
    """Return the median milliseconds of ``sync()`` while finished jobs are retained."""
    with_rows = [sys.executable, "-m", "tests.bench.sync_time", side.executor]
    insert_finished(connection, side, FINISHED_JOBS, SPREAD)
    done = subprocess.run(
        with_rows, env={**cluster.env, "PYTHONPATH": str(Path.cwd())}, capture_output=True, text=True, check=True
    )
    times = json.loads(done.stdout.strip().splitlines()[-1])
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {side.worker_table.replace('worker', 'job')}")
    return statistics.median(times)


def idle_memory(worker: Process, cluster: Cluster) -> dict[str, float]:
    """Return RSS and PSS, in MB, of a worker that has had time to settle, with its children."""
    settled = time.monotonic() + SETTLED
    wait_for(lambda: time.monotonic() > settled, "the worker to settle", timeout=SETTLED * 2)
    cluster.check()
    tree = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    memory = [process.memory_full_info() for process in tree]
    return {
        "idle_rss_mb": sum(part.rss for part in memory) / 1e6,
        "idle_pss_mb": sum(part.pss for part in memory) / 1e6,
    }


def run(cluster: Cluster, tasks: int) -> float:
    """Return the seconds that a run of so many mapped tasks took, by Airflow's own account."""
    run_id = cluster.api.trigger(DAG, {"n": tasks})

    def ended() -> dict[str, str] | None:
        found = cluster.api.call("GET", f"dags/{DAG}/dagRuns/{run_id}")
        return found if found["state"] not in ("queued", "running") else None

    found = cluster.wait(ended, f"{tasks} tasks", 600)
    if found["state"] != "success":
        raise RuntimeError(f"The run ended as {found['state']}.")
    return (datetime.fromisoformat(found["end_date"]) - datetime.fromisoformat(found["start_date"])).total_seconds()


if __name__ == "__main__":
    parser = ArgumentParser()
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("database")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="edge-bench-"))
    try:
        print(json.dumps(measure(SIDES[arguments.side], arguments.database, place)))
    finally:
        shutil.rmtree(place, ignore_errors=True)
