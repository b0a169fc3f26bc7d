"""The fleet at one time: two or three statements, however many workers and jobs there are."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edge_otel.models import tables
from edge_otel.telemetry.fleet import HELD, Jobs, Snapshot, Worker

_WORKER = tuple(getattr(tables.Worker, name) for name in Worker._fields)


def take(session: Session, now: datetime) -> Snapshot:
    """Return the workers, the jobs by queue, team and state, and the slots that each worker's jobs hold."""
    job = tables.Job
    of_workers = select(job.worker, func.sum(job.slots)).where(job.state.in_(HELD)).group_by(job.worker)
    return Snapshot(
        now,
        [Worker(*row) for row in session.execute(select(*_WORKER).order_by(tables.Worker.name))],
        _jobs(session),
        {worker: int(slots) for worker, slots in session.execute(of_workers)},
    )


def take_queues(session: Session, now: datetime) -> Snapshot:
    """Return the same as far as queues go: without what workers say of themselves, and the slots that each has held."""
    workers = session.execute(select(*_WORKER[:-1]))
    return Snapshot(now, [Worker._make([*row, {}]) for row in workers], _jobs(session), {})


def _jobs(session: Session) -> list[Jobs]:
    job = tables.Job
    of_queues = select(
        job.queue, job.team, job.state, func.count(), func.sum(job.slots), func.min(job.queued_at)
    ).group_by(job.queue, job.team, job.state)
    return [
        Jobs(queue, team, state, jobs, int(slots), oldest)
        for queue, team, state, jobs, slots, oldest in session.execute(of_queues)
    ]
