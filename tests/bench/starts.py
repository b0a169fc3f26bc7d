"""How long a task waits for its process on an idle worker, by Airflow's own account: start_date - queued_dttm."""

from __future__ import annotations

import random
import time
from typing import Any

from demo.cluster import Cluster
from demo.wait import wait_for
from tests.bench.sides import OURS, Side
from tests.bench.spread import percentile

DAG = "bench_single"
WARM_RUNS = 3
LONG = 60.0
_TIMES = """SELECT id, state, extract(epoch FROM start_date - queued_dttm)::float AS wait, queued_dttm, start_date
    FROM task_instance WHERE dag_id = %s AND run_id = %s"""
_STAGES = """SELECT extract(epoch FROM queued_at - %s)::float, extract(epoch FROM assigned_at - queued_at)::float,
    extract(epoch FROM accepted_at - assigned_at)::float, extract(epoch FROM %s - accepted_at)::float
    FROM edge_otel_job WHERE id = %s"""
STAGES = ("scheduler", "assignment", "acceptance", "process")
"""Until the row is there, until a worker has it, until that is confirmed, until the task's process runs."""


def measure(side: Side, cluster: Cluster, connection: Any, runs: int, phase: float) -> dict[str, list[float]]:
    """Return the seconds that each of many runs of one task waited, and of ours how long each stage took.

    Runs come at a random time of up to ``phase`` seconds after the last has ended: they meet a poll at any phase.
    """
    cluster.wait(lambda: cluster.api.dag_exists(DAG), "the DAG", 120)
    found: dict[str, list[float]] = {"waits": []}
    for number in range(WARM_RUNS + runs):
        time.sleep(random.random() * phase)
        cluster.check()
        row = _run(cluster, connection)
        if number < WARM_RUNS:
            continue
        found["waits"].append(row["wait"])
        if side is OURS:
            for stage, seconds in zip(STAGES, _stages(connection, row), strict=True):
                found.setdefault(stage, []).append(seconds)
    return found


def _run(cluster: Cluster, connection: Any) -> dict[str, Any]:
    run_id = cluster.api.trigger(DAG)

    def ended() -> dict[str, Any] | None:
        with connection.cursor() as cursor:
            cursor.execute(_TIMES, (DAG, run_id))
            row = cursor.fetchone()
            found = dict(zip((column.name for column in cursor.description), row, strict=True)) if row else {}
        return found if found.get("state") in ("success", "failed") else None

    row: dict[str, Any] = wait_for(ended, "a task to end", timeout=LONG, pause=0.05) or {}
    if row["state"] != "success":
        raise RuntimeError(f"The task ended as {row['state']}.")
    return row


def _stages(connection: Any, row: dict[str, Any]) -> tuple[float, ...]:
    with connection.cursor() as cursor:
        cursor.execute(_STAGES, (row["queued_dttm"], row["start_date"], str(row["id"])))
        stages: tuple[float, ...] = cursor.fetchone()
        return stages


def summary(found: dict[str, list[float]]) -> dict[str, float]:
    """Return the spread of what was measured."""
    return {
        f"{name}_p{round(share * 100)}_s": percentile(values, share)
        for name, values in found.items()
        for share in (0.5, 0.99)
    }
