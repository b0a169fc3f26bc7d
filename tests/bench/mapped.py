"""A run of short mapped tasks, timed by Airflow's own account."""

from __future__ import annotations

from datetime import datetime

from demo.cluster import Cluster

DAG = "bench_mapped"


def run_mapped(cluster: Cluster, tasks: int) -> tuple[str, float]:
    """Return the run's id and how many seconds it took."""
    run_id = cluster.api.trigger(DAG, {"n": tasks})

    def ended() -> dict[str, str] | None:
        found = cluster.api.call("GET", f"dags/{DAG}/dagRuns/{run_id}")
        return found if found["state"] not in ("queued", "running") else None

    found = cluster.wait(ended, f"{tasks} tasks", 600)
    if found["state"] != "success":
        raise RuntimeError(f"The run ended as {found['state']}.")
    took = datetime.fromisoformat(found["end_date"]) - datetime.fromisoformat(found["start_date"])
    return run_id, took.total_seconds()
