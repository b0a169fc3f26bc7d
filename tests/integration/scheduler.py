"""What a scheduler does with an executor, and worker ``w`` with its jobs."""

from __future__ import annotations

from datetime import UTC, datetime

from rows import claim

from edge_otel.models import jobs
from edge_otel.models.tables import Worker
from edge_otel.state import JobState


def queue(database, executor, *workloads):
    """Queue workloads in a scheduler's transaction."""
    with database() as session:
        for workload in workloads:
            executor.queue_workload(workload, session)


def run(database, end=None, **report):
    """Let worker ``w`` take the next job, and end it so; return its id."""
    now = datetime.now(UTC)
    with database() as session:
        job = claim(session, session.get(Worker, "w"), now)
        jobs.record_report(job, JobState.RUNNING, job.claim, now)
        if end is not None:
            jobs.record_report(job, end, job.claim, now, **report)
        return job.id


def events(executor):
    """Return what the scheduler is told since it last asked."""
    return {key: state for key, (state, _) in executor.get_event_buffer().items()}
