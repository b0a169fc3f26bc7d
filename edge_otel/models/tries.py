"""Earlier tries of tasks that kept their id: Airflow gives a new one only to a try whose task has begun. Each has a row
of its own, with its log, so that what still comes of it goes where that log belongs. Nothing here commits."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import func, select, union, update
from sqlalchemy.orm import Session

from edge_otel.models.tables import Base, Job, Log, LogChunk
from edge_otel.state import FINISHED, JobState


def set_aside(session: Session, job: Job, now: datetime) -> None:
    """Give what a locked job was, and its log, a row of their own: another try of its task begins under its id.

    Its claim rises: all numbers up to the one before are those of the row that is set aside.
    """
    values = {**_values(job), "id": str(uuid4()), "known_as": job.id, "workload": ""}
    if job.state not in FINISHED:
        error = "The task was queued for another try meanwhile."
        values |= {"state": JobState.LOST, "ended_at": now, "changed_at": now, "error": error}
    session.add(Job(**values))
    job.claim, job.holders, job.log_ends = job.claim + 1, {}, {}
    move_log(session, job.id, values["id"])


def move_log(session: Session, job_id: str, key: str) -> None:
    """Give a log, if there is one, another key."""
    query = select(Log).where(Log.job_id == job_id).with_for_update()
    log = session.scalar(query.execution_options(populate_existing=True))
    if log is None:
        return
    session.add(Log(**{**_values(log), "job_id": key, "known_as": job_id}))
    # Before the chunks, which refer to it.
    session.flush()
    chunks = update(LogChunk).where(LogChunk.job_id == job_id).values(job_id=key)
    session.execute(chunks.execution_options(synchronize_session=False))
    session.delete(log)
    session.flush()


def _values(row: Base) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in row.__table__.columns}


def last_claim(session: Session, job_id: str) -> int:
    """Return the highest claim number that is known of an id without a job; 0 where there is none."""
    of_log = select(func.max(LogChunk.claim)).where(LogChunk.job_id == job_id)
    of_tries = select(func.max(Job.claim)).where(Job.known_as == job_id)
    return max(session.scalar(of_log) or 0, session.scalar(of_tries) or 0)


def is_of(job: Any, claim: int) -> bool:
    """Return whether a claim is one of this row's, as far as the row tells."""
    return job is not None and (claim >= job.claim or str(claim) in job.holders)


def of_claims(session: Session, claims: Collection[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """Return, by id and claim number, the keys of the earlier tries that these claims were given for; none where there
    is no such try (any more)."""
    if not claims:
        return {}
    query = select(Job.known_as, Job.claim, Job.id).where(Job.known_as.in_({job_id for job_id, _ in claims}))
    keys: dict[tuple[str, int], str] = {}
    for known_as, last, key in session.execute(query.order_by(Job.claim)):
        for job_id, claim in claims:
            if job_id == known_as and claim <= last:
                keys.setdefault((job_id, claim), key)
    return keys


def key_of_log(session: Session, job_id: str, path: str) -> str:
    """Return the key of the log that belongs at ``path``: the id itself, unless that of an earlier try does."""
    of_job = select(Job.id).where(Job.known_as == job_id, Job.log_path == path)
    of_log = select(Log.job_id).where(Log.known_as == job_id, Log.path == path)
    return session.scalar(union(of_job, of_log).limit(1)) or job_id
