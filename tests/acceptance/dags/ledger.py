"""What the tests' tasks leave behind: one line in one file per event, so that a task that ran twice shows."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "ledger"
"""Beside the DAG folder of the cluster, which is a copy of this one."""


def _write(file: Path, entry: dict[str, object]) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, (json.dumps(entry) + "\n").encode())
    finally:
        os.close(handle)


def entry(event: str) -> dict[str, object]:
    """Return an event of the task that runs in this process."""
    from airflow.sdk import get_current_context

    task = get_current_context()["ti"]
    about = {"task": task.task_id, "index": task.map_index, "try": task.try_number, "event": event}
    return {**about, "pid": os.getpid(), "time": time.time()}


def _file() -> Path:
    from airflow.sdk import get_current_context

    return FOLDER / f"{get_current_context()['ti'].run_id}.jsonl"


def note(event: str) -> None:
    """Record an event of the task that runs in this process."""
    _write(_file(), entry(event))


def read() -> list[dict[str, object]]:
    """Return what the tasks of this run have recorded."""
    return [json.loads(line) for line in _file().read_text().splitlines()]


def wait_for_release(index: int) -> None:
    """Return when the test has released this task of the run, or all of it."""
    from airflow.sdk import get_current_context

    run_id = get_current_context()["ti"].run_id
    gates = (FOLDER / f"{run_id}.go", FOLDER / f"{run_id}.{index}.go")
    while not any(gate.exists() for gate in gates):
        time.sleep(0.1)


def note_missed_deadline(context: object = None, **kwargs: object) -> None:
    """Record a missed deadline: a callback that an executor runs."""
    _write(FOLDER / "deadlines.jsonl", {"event": "missed", "pid": os.getpid(), **kwargs})
