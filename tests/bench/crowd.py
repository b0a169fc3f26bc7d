"""Many sleeping tasks on one worker: from a job's process to the task's own code, and the memory of all of them."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import psutil

from demo.cluster import Cluster
from demo.process import Process
from tests.bench.findings import Findings

DAG = "bench_crowd"
WARM = 2
ALONE = 10
"""Runs of one task on the idle worker, after some that are not counted."""
LONG = 900.0
SPARE = 1_500_000_000
"""Bytes of memory that must be left: a machine that runs out of it measures nothing."""
OPTIONS = {
    # Airflow's own bounds are lower: 128 in its default pool, 32 for each scheduler.
    "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": "1000",
    "AIRFLOW__CORE__PARALLELISM": "1000",
}


class MemoryShort(Exception):
    """The machine has not the memory for so many tasks."""


def measure(cluster: Cluster, worker: Process, tasks: int, findings: Findings) -> None:
    """Find how long a task takes to its own code when it is alone, and what so many at once take."""
    cluster.wait(lambda: cluster.api.dag_exists(DAG), "the DAG", 120)
    alone = [_run(cluster, worker, 1, number)[0][0] for number in range(WARM + ALONE)][WARM:]
    findings.figures["launch_s"] = statistics.median(entry["runs"] - entry["launched"] for entry in alone)
    entries, memory = _run(cluster, worker, tasks, WARM + ALONE)
    findings.figures["crowd_s"] = max(e["runs"] for e in entries) - min(e["launched"] for e in entries)
    findings.figures["crowd_pss_mb"] = memory["pss"] / 1e6
    findings.details["crowd"] = {
        "tasks": tasks,
        "rss_mb": memory["rss"] / 1e6,
        "processes": memory["processes"],
        "launch_p50_s": statistics.median(entry["runs"] - entry["launched"] for entry in entries),
    }


def _run(cluster: Cluster, worker: Process, tasks: int, number: int) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Return when each task's process was launched and when its code ran, and the memory of all."""
    folder = cluster.folder / "crowd" / str(number)
    folder.mkdir(parents=True)
    run_id = cluster.api.trigger(DAG, {"n": tasks, "folder": str(folder)})

    def all_there() -> list[Path] | None:
        found = list(folder.glob("*.json"))
        if psutil.virtual_memory().available < SPARE:
            raise MemoryShort(f"{len(found)} of {tasks} tasks leave no {SPARE / 1e9:.1f} GB of memory.")
        return found if len(found) == tasks else None

    try:
        files = cluster.wait(all_there, f"{tasks} tasks to run", LONG)
        memory = _memory(worker) if tasks > 1 else {}
    finally:
        (folder / "go").touch()
    cluster.wait(lambda: cluster.api.run_state(DAG, run_id) == "success", "the tasks to end", LONG)
    return [json.loads(file.read_text()) for file in files or []], memory


def _memory(worker: Process) -> dict[str, Any]:
    tree = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    parts = [process.memory_full_info() for process in tree]
    return {"pss": sum(p.pss for p in parts), "rss": sum(p.rss for p in parts), "processes": len(parts)}
