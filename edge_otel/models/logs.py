"""Queries on task logs: appended by byte offset, never twice, never with a gap. Nothing here commits."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import delete, exists, func, select, tuple_
from sqlalchemy.orm import Session

from edge_otel.errors import LogGap
from edge_otel.models.session import prepare_lock
from edge_otel.models.tables import Job, Log, LogChunk
from edge_otel.state import FINISHED

ABOUT = ("dag_id", "task_id", "run_id", "map_index", "try_number", "queue", "worker", "team")
"""What a log's row says of its job."""

PURGE_LIMIT, PURGE_CHUNKS = 200, 500
"""Most rows that one purge of logs removes: a chunk may have half a megabyte."""


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
        _store(session, job, _chunk(job.id, claim, known, fresh, None))
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
        _store(session, job, _chunk(job.id, job.claim, cursor(session, job.id, job.claim), data, pushed_at))
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


class Homes(NamedTuple):
    """Where else logs go, and what the store keeps them for."""

    only_here: bool = False
    """Airflow reads finished logs from the store."""
    uploads: bool = False
    """There is a remote log that they are uploaded to."""
    exports: bool = False
    """Their lines are sent as OTLP log records."""


def purge(session: Session, homes: Homes, kept_since: datetime) -> bool:
    """Delete logs without a job that have all their other homes, or are as old as ``kept_since``; return whether to
    call again. It removes PURGE_LIMIT logs or PURGE_CHUNKS chunks at most, and passes over what another server has."""
    done = Log.changed_at < kept_since
    if not homes.only_here:
        has_homes = Log.upload == "done" if homes.uploads else Log.upload != "none"
        if homes.exports:
            has_homes &= Log.export_due.is_(False)
        done |= has_homes
    jobless = ~exists().where(Job.id == Log.job_id)
    found = session.scalars(select(Log.job_id).where(done, jobless).order_by(Log.changed_at).limit(PURGE_LIMIT))
    prepare_lock(session, Log)
    locked = select(Log.job_id).where(Log.job_id.in_(list(found))).with_for_update(skip_locked=True)
    ids = list(session.scalars(locked))
    key = (LogChunk.job_id, LogChunk.claim, LogChunk.offset)
    of_chunks = select(*key).where(LogChunk.job_id.in_(ids)).order_by(*key).limit(PURGE_CHUNKS)
    chunks = [tuple(row) for row in session.execute(of_chunks)]
    for start in range(0, len(chunks), 100):
        session.execute(delete(LogChunk).where(tuple_(*key).in_(chunks[start : start + 100])))
    if len(chunks) == PURGE_CHUNKS:
        return True
    session.execute(delete(Log).where(Log.job_id.in_(ids)).execution_options(synchronize_session=False))
    return len(ids) == PURGE_LIMIT


def _store(session: Session, job: Job, chunk: LogChunk) -> None:
    log = session.get(Log, job.id)
    if log is None:
        about = {name: getattr(job, name) for name in ABOUT}
        times = {"created_at": job.changed_at, "changed_at": job.changed_at}
        log = Log(job_id=job.id, path=job.log_path, about=about, carrier=job.carrier, exported={}, **times)
        session.add(log)
        # Before the chunk, which refers to it.
        session.flush()
    log.export_due = True
    # What comes after the end (a task that was deferred, an edge3 worker's own error text) belongs into the file too.
    job.log_complete = False
    log.upload = "none"
    session.add(chunk)
    session.flush()


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
