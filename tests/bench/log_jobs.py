"""Queues jobs that log, as the executor does; Airflow's configuration names the database. Prints their ids as JSON."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from uuid import uuid4

from edge_otel.models import jobs
from edge_otel.models.session import new_session


def main() -> None:
    """Queue as many jobs as the first argument says, which run the Python code that is the second."""
    made = []
    with new_session() as session:
        for number in range(int(sys.argv[1])):
            job_id = str(uuid4())
            path = f"dag_id=logs/run_id={job_id}/task_id=t{number}/attempt=1.log"
            workload = json.dumps({"type": "Stub", "token": "", "log_path": path, "do": sys.argv[2]})
            job = jobs.NewJob(
                id=job_id,
                kind="task",
                dag_id="logs",
                task_id=f"t{number}",
                run_id=job_id,
                map_index=-1,
                try_number=1,
                queue="logs",
                slots=1,
                urgency=1,
                priority=1,
                team=None,
                workload=workload,
                carrier={},
                log_path=path,
            )
            jobs.queue(session, job, datetime.now(UTC))
            made.append(job_id)
    print(json.dumps(made))


if __name__ == "__main__":
    main()
