"""Queries on task logs: appended by byte offset, never twice, never with a gap. Nothing here commits."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edge_otel.errors import LogGap
from edge_otel.models.tables import Job, LogChunk
from edge_otel.state import FINISHED


def cursor(session: Session, job_id: str, claim: int) -> int:
    """Return how many bytes of this claim's log are stored."""
    stored = session.scalar(
        select(func.max(LogChunk.offset + LogChunk.length)).where(LogChunk.job_id == job_id, LogChunk.claim == claim)
    )
    return int(stored or 0)


def stored_bytes(session: Session, job_id: str) -> int:
    """Return how many bytes of the job's log are stored, of all claims."""
    return int(session.scalar(select(func.sum(LogChunk.length)).where(LogChunk.job_id == job_id)) or 0)


class Appended(NamedTuple):
    """What became of a range of bytes."""

    cursor: int
    """Bytes that are stored now, in all."""
    fresh: int
    """Those that were not before."""


def append(session: Session, job: Job, claim: int, offset: int, data: bytes) -> Appended:
    """Store bytes that begin at ``offset`` of what a locked job logged under a claim.

    What is stored already is dropped; LogGap is raised, with the cursor, if bytes before ``offset`` are missing.
    """
    known = cursor(session, job.id, claim)
    if offset > known:
        raise LogGap(cursor=known)
    fresh = data[known - offset :]
    if fresh:
        session.add(_chunk(job.id, claim, known, fresh, None))
        job.log_complete = False
        session.flush()
    return Appended(known + len(fresh), len(fresh))


def push(session: Session, job: Job, data: bytes, pushed_at: datetime) -> int:
    """Store the next piece of a locked job's log, unless a piece with the same time is there already; return the bytes
    that were stored."""
    repeated = session.scalar(
        select(LogChunk.offset)
        .where(LogChunk.job_id == job.id, LogChunk.claim == job.claim, LogChunk.pushed_at == pushed_at)
        .limit(1)
    )
    if repeated is not None:
        return 0
    if data:
        session.add(_chunk(job.id, job.claim, cursor(session, job.id, job.claim), data, pushed_at))
        # What comes after the end (an edge3 worker's own error text) belongs into the file as well.
        job.log_complete = False
        session.flush()
    return len(data)


def read(session: Session, job_id: str, claim: int | None = None) -> Iterator[bytes]:
    """Yield the bytes of a job's log in order, of one claim or of all."""
    query = select(LogChunk.data).where(LogChunk.job_id == job_id).order_by(LogChunk.claim, LogChunk.offset)
    if claim is not None:
        query = query.where(LogChunk.claim == claim)
    for data in session.scalars(query.execution_options(yield_per=16)):
        yield zlib.decompress(data)


def all_here(session: Session, job: Job) -> bool:
    """Return whether the job is over and every byte that its worker spoke of is stored."""
    if job.log_length is None or job.state not in FINISHED:
        return False
    return cursor(session, job.id, job.claim) >= job.log_length


def _chunk(job_id: str, claim: int, offset: int, data: bytes, pushed_at: datetime | None) -> LogChunk:
    # Level 1: logs shrink well at any level, and the API server's processor time is what is scarce.
    return LogChunk(
        job_id=job_id,
        claim=claim,
        offset=offset,
        length=len(data),
        data=zlib.compress(data, 1),
        pushed_at=pushed_at,
    )
