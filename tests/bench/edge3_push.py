"""Pushes files by the code with which edge3's worker pushes the logs of its jobs; prints what that took, as JSON.

A worker's configuration is in the environment. The files are there before the clock starts.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from airflow.models.taskinstancekey import TaskInstanceKey  # type: ignore[import-not-found,unused-ignore]
from airflow.providers.common.compat.sdk import conf  # type: ignore[import-not-found,unused-ignore]
from airflow.providers.edge3.cli.worker import EdgeWorker  # type: ignore[import-not-found,unused-ignore]

from tests.bench.log_text import block


async def push(tasks: list[list[Any]], folder: Path, megabytes: int) -> float:
    """Push as many megabytes of each task's log, all at once, and return the seconds."""
    worker = SimpleNamespace(push_logs=True, push_log_chunk_size=conf.getint("edge", "push_log_chunk_size"))
    jobs = []
    for number, (dag_id, task_id, run_id, map_index, try_number, task_id_) in enumerate(tasks):
        file = folder / f"{number}.log"
        with file.open("wb") as handle:
            for _ in range(megabytes):
                handle.write(block())
        key = TaskInstanceKey(dag_id, task_id, run_id, try_number, map_index)
        told = SimpleNamespace(key=key, task_instance_id=UUID(task_id_), identifier=str(key))
        jobs.append(SimpleNamespace(edge_job=told, logfile=file, logsize=0))
    began = time.perf_counter()
    await asyncio.gather(*(EdgeWorker._push_logs_in_chunks(worker, job) for job in jobs))
    return time.perf_counter() - began


def main() -> None:
    """Push as the arguments say: the tasks as JSON, and the megabytes of each."""
    tasks, megabytes = json.loads(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(push(tasks, Path(folder), megabytes))))


if __name__ == "__main__":
    main()
