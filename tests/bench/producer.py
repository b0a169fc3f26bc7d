"""Queues jobs at a steady rate as the scheduler does, one transaction each; prints their ids as a JSON list at the end.

Airflow's configuration names the database.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser
from datetime import UTC, datetime
from uuid import uuid4

from edge_otel.models import jobs
from edge_otel.models.session import new_session
from tests.bench.sides import WORKLOAD


def new_job(number: int) -> jobs.NewJob:
    """Return a task's job as the executor makes it; nothing is logged, so it has no log to write."""
    job_id = str(uuid4())
    return jobs.NewJob(
        id=job_id,
        kind="task",
        dag_id="d",
        task_id=f"t{number}",
        run_id="r",
        map_index=-1,
        try_number=1,
        queue="default",
        slots=1,
        urgency=1,
        priority=1,
        team=None,
        workload=WORKLOAD.replace("<id>", job_id).replace("<n>", str(number)),
        carrier={},
        log_path=None,
    )


def main() -> None:
    """Queue until the time is over."""
    parser = ArgumentParser()
    parser.add_argument("per_second", type=float)
    parser.add_argument("seconds", type=float)
    arguments = parser.parse_args()
    made = []
    # What the first one costs alone (mappers, statements, a connection) is not what any other waits for.
    with new_session() as session:
        jobs.queue(session, new_job(0), datetime.now(UTC))
        session.flush()
        session.rollback()
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    for number in range(round(arguments.per_second * arguments.seconds)):
        time.sleep(max(0.0, began + number / arguments.per_second - time.monotonic()))
        job = new_job(number)
        with new_session() as session:
            jobs.queue(session, job, datetime.now(UTC))
        made.append(job.id)
    print(json.dumps(made))


if __name__ == "__main__":
    main()
