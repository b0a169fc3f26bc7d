"""What the example DAG must have done: pure, so that the demo's verdict is plain to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from demo.airflow_api import label

DAG_ID = "edge_demo"
LINES = 2000
TRIES = 8
"""Seven task instances, of which one needs two tries."""
TASKS = ("calibrate", "inspect", "machines", "measure[0]", "measure[1]", "measure[2]", "report")

HOST_METRICS = ("system.cpu.utilization", "system.memory.usage", "system.filesystem.usage", "process.memory.usage")
SCRAPED = (
    'edge_worker_state{worker="site-1"',
    'edge_worker_last_heartbeat_timestamp_seconds{worker="site-1"',
    'edge_worker_slots{worker="site-1"',
    "edge_jobs_finished_total",
    "edge_job_queue_duration_seconds_count",
)
"""Beginnings of lines of a scrape."""


def wrong_tasks(tasks: Iterable[dict[str, Any]], worker: str) -> list[str]:
    """Return what is wrong with the task instances of the run; empty when nothing is."""
    by_label = {label(task): task for task in tasks}
    wrong = [f"{name} is missing" for name in TASKS if name not in by_label]
    for name, task in by_label.items():
        tries = 2 if name == "calibrate" else 1
        if task["state"] != "success":
            wrong.append(f"{name} is {task['state']} instead of success")
        if task["hostname"] != worker:
            wrong.append(f"{name} ran on {task['hostname'] or 'nothing'} instead of {worker}")
        if task["try_number"] != tries:
            wrong.append(f"{name} took {task['try_number']} tries instead of {tries}")
    return wrong


def wrong_log(lines: Sequence[str]) -> list[str]:
    """Return what is wrong with the log of the talkative task; empty when each line is there once and in order."""
    readings = [line for line in lines if line.startswith("reading ")]
    expected = [f"reading {number} of {LINES}" for number in range(1, LINES + 1)]
    return [] if readings == expected else [f"the log of inspect has {len(readings)} of {LINES} lines, or in disorder"]
