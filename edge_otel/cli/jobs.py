"""``airflow edge jobs``."""

from __future__ import annotations

import sys
from argparse import Namespace
from datetime import UTC, datetime

from edge_otel.cli.command import edge_command, fail
from edge_otel.cli.output import ago, print_rows, said, span
from edge_otel.cli.selecting import checked, parts
from edge_otel.models import job_view
from edge_otel.models.session import new_session
from edge_otel.state import JobState
from edge_otel.views import JobRow

MOST = 100_000
"""Jobs that are listed at once."""


@edge_command
def list_(args: Namespace) -> None:
    """Print the jobs that match; all, where nothing is said."""
    now, states = datetime.now(UTC), parts(args.state)
    for state in states:
        if state not in list(JobState):
            fail(f"--state {state!r}: there is {', '.join(JobState)}")
    if not 0 < args.limit <= MOST:
        fail(f"--limit {args.limit}: from 1 to {MOST}")
    wanted = checked(
        job_view.JobFilter,
        states=states,
        dag_id=args.dag,
        task_id=args.task,
        run_id=args.run,
        queue_is=args.queue,
        worker_is=args.worker,
        team=args.team,
    )
    with new_session() as session:
        page = job_view.page(session, wanted, now, limit=args.limit)
    print_rows(page.jobs, lambda job: job_columns(job, now), args.output)
    if page.total > len(page.jobs):
        print(f"{len(page.jobs)} of {page.total} jobs; --limit shows more.", file=sys.stderr)  # noqa: T201


def job_columns(job: JobRow, now: datetime) -> dict[str, str]:
    """Return what people look for in a job."""
    end = job.ended_at or now
    return {
        "dag": job.dag_id,
        "task": job.task_id if job.map_index < 0 else f"{job.task_id}[{job.map_index}]",
        "run": job.run_id,
        "try": str(job.try_number),
        "kind": job.kind,
        "queue": job.queue,
        "state": job.state,
        "worker": said(job.worker),
        "queued": ago(job.queued_at, now),
        "ran": "" if job.accepted_at is None else span(max(0.0, (end - job.accepted_at).total_seconds())),
        "exit": said(job.exit_code),
        "error": said(job.error),
    }
