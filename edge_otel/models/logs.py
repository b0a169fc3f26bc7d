"""Queries on task logs: appended by byte offset, never twice, never with a gap. Nothing here commits."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from itertools import accumulate
from typing import NamedTuple

from sqlalchemy import delete, exists, func, select, tuple_
from sqlalchemy.orm import Session

from edge_otel.errors import LogGap
from edge_otel.models.packed import Packed, unpacked
from edge_otel.models.session import prepare_lock
from edge_otel.models.tables import Job, Log, LogChunk
from edge_otel.state import FINISHED

ABOUT = ("dag_id", "task_id", "run_id", "map_index", "try_number", "queue", "team")
"""What a log's row says of its job; and who it ran at, by claim."""

READ_CHUNKS, READ_BYTES = 64, 4 * 1024 * 1024
"""Most chunks, and most bytes of more than one chunk, that are in memory at once."""
_UNSAID = 2**62
"""The length of a log whose worker has not said it yet."""

PURGE_LIMIT, PURGE_CHUNKS = 200, 500
"""Most rows that one purge of logs removes: a chunk may have four megabytes."""


def cursor(session: Session, job_id: str, claim: int) -> int:
    """Return how many bytes of this claim's log are stored."""
    stored = session.scalar(
        select(LogChunk.offset + LogChunk.length)
        .where(LogChunk.job_id == job_id, LogChunk.claim == claim)
        .order_by(LogChunk.offset.desc())
        .limit(1)
    )
    return stored or 0


def lengths(session: Session, job_id: str) -> dict[int, int]:
    """Return how many bytes are stored of each claim, in the order in which they make the log."""
    end = func.max(LogChunk.offset + LogChunk.length)
    query = select(LogChunk.claim, end).where(LogChunk.job_id == job_id).group_by(LogChunk.claim)
    return {claim: int(length) for claim, length in session.execute(query.order_by(LogChunk.claim))}


def lengths_of(session: Session, job_ids: Collection[str]) -> dict[str, dict[int, int]]:
    """Return the same of several logs."""
    columns = (LogChunk.job_id, LogChunk.claim)
    query = select(*columns, func.sum(LogChunk.length)).where(LogChunk.job_id.in_(job_ids)).group_by(*columns)
    found: dict[str, dict[int, int]] = {job_id: {} for job_id in job_ids}
    for job_id, claim, length in session.execute(query):
        found[job_id][claim] = int(length)
    return found


class Appended(NamedTuple):
    """What became of a range of bytes."""

    cursor: int
    """Bytes that are stored now, in all."""
    fresh: int
    """Those that were not before."""


def append(session: Session, job: Job, claim: int, offset: int, data: bytes | Packed) -> Appended:
    """Store bytes that begin at ``offset`` of what a locked job logged under a claim.

    What is stored already is dropped; LogGap is raised, with the cursor, if bytes before ``offset`` are missing.
    """
    packed = data if isinstance(data, Packed) else Packed.of(data)
    known = cursor(session, job.id, claim)
    if offset > known:
        raise LogGap(cursor=known)
    fresh = offset + packed.length - known
    if fresh <= 0:
        return Appended(known, 0)
    if offset < known:
        packed = Packed.of(packed.unpacked()[-fresh:])
    _store(session, job, _chunk(job.id, claim, known, packed, None))
    return Appended(known + fresh, fresh)


def push(session: Session, job: Job, data: bytes, pushed_at: datetime) -> int:
    """Store the next piece of a locked job's log, unless a piece with the same time is there already; return the bytes
    that were stored."""
    claim = _pushed_claim(job, pushed_at)
    repeated = session.scalar(
        select(LogChunk.offset)
        .where(LogChunk.job_id == job.id, LogChunk.claim == claim, LogChunk.pushed_at == pushed_at)
        .limit(1)
    )
    if repeated is not None:
        return 0
    if data:
        _store(session, job, _chunk(job.id, claim, cursor(session, job.id, claim), Packed.of(data), pushed_at))
    return len(data)


def _pushed_claim(job: Job, pushed_at: datetime) -> int:
    """Return the claim that a piece belongs to: an edge3 worker does not say, and its task may have gone on elsewhere.
    Which claims are such a worker's is in ``Job.log_ends``."""
    pushing = sorted((int(claim) for claim, (length, _) in job.log_ends.items() if length is None), reverse=True)
    began = job.accepted_at
    if job.claim in pushing and began is not None and pushed_at >= began:
        return job.claim
    return next((claim for claim in pushing if claim < job.claim), job.claim)


class Piece(NamedTuple):
    """Bytes that follow each other in one claim's log."""

    claim: int
    offset: int
    data: bytes

    @property
    def end(self) -> tuple[int, int]:
        """The claim, and the byte after these."""
        return self.claim, self.offset + len(self.data)


def pieces(session: Session, job_id: str, claim: int = 0, offset: int = 0) -> list[Piece]:
    """Return the next bytes of a log, from a byte of a claim on: READ_BYTES at most, or one piece; none at its end."""
    of_claim = (LogChunk.job_id == job_id) & (LogChunk.claim == claim)
    first = select(func.max(LogChunk.offset)).where(of_claim, LogChunk.offset <= offset).scalar_subquery()
    wanted = (
        select(LogChunk.length)
        .where(LogChunk.job_id == job_id, LogChunk.claim >= claim)
        .where((LogChunk.claim > claim) | (LogChunk.offset >= func.coalesce(first, 0)))
        .order_by(LogChunk.claim, LogChunk.offset)
    )
    until = accumulate(session.scalars(wanted.limit(READ_CHUNKS)))
    few = max(1, sum(end <= READ_BYTES for end in until))
    chunks = wanted.with_only_columns(LogChunk.claim, LogChunk.offset, LogChunk.data).limit(few)
    found = [Piece(of, start, unpacked(data)) for of, start, data in session.execute(chunks)]
    if found and found[0].claim == claim and (known := offset - found[0].offset) > 0:
        found[0] = Piece(claim, offset, found[0].data[known:])
    # Where the log ends at the given byte.
    return [piece for piece in found if piece.data]


def read(session: Session, job_id: str) -> Iterator[bytes]:
    """Yield the bytes of a job's log in order."""
    end = (0, 0)
    while found := pieces(session, job_id, *end):
        yield from (piece.data for piece in found)
        end = found[-1].end


def mark_whole(session: Session, job_id: str, now: datetime, fault: str | None = None) -> None:
    """Note that all of the log is here, and what is wrong with it; a remote log is to have it next, and the collector a
    last line without an end. A job without a byte has no log."""
    log = session.get(Log, job_id)
    if log is not None:
        log.changed_at, log.upload, log.export_due, log.fault = now, "due", True, fault


def mark_partial(session: Session, job_id: str, missing: str) -> None:
    """Note which bytes of a log are not here."""
    log = session.get(Log, job_id)
    if log is not None:
        log.fault = missing


def missing(job: Job, lengths: Mapping[int, int]) -> dict[int, str]:
    """Return which bytes of a finished job's log are still to come, in words by claim; none where all are here.

    ``lengths``: bytes that are stored, by claim. Every worker under whose claim the task ran says how long its log is;
    one of edge3 never does.
    """
    ran = {int(claim): worker for claim, worker in job.holders.items()}
    if job.accepted_at is not None or str(job.claim) in job.log_ends:
        ran[job.claim] = job.worker
    said = {}
    for claim, worker in sorted(ran.items()):
        here, (length, _) = lengths.get(claim, 0), job.log_ends.get(str(claim), (_UNSAID, None))
        if length is not None and here < length:
            until = "on" if length == _UNSAID else f"to {length - 1}"
            of = f" of run {claim}" if len(ran) > 1 else ""
            said[claim] = f"bytes {here} {until}{of} have not come from edge worker {worker}"
    return said


def all_here(session: Session, job: Job) -> bool:
    """Return whether the job is over and every byte that its workers spoke of is stored."""
    return job.state in FINISHED and not missing(job, lengths(session, job.id))


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
        about = {name: getattr(job, name) for name in ABOUT} | {"workers": {}}
        times = {"created_at": job.changed_at, "changed_at": job.changed_at}
        whose = {"job_id": job.id, "known_as": job.known_as, "path": job.log_path, "about": about}
        log = Log(**whose, carrier=job.carrier, exported={}, **times)
        session.add(log)
        # Before the chunk, which refers to it.
        session.flush()
    workers, claim = log.about["workers"], str(chunk.claim)
    if claim not in workers:
        holder = job.worker if chunk.claim == job.claim else job.holders.get(claim)
        log.about = {**log.about, "workers": {**workers, claim: holder}}
    log.export_due = True
    # What comes after the end (a task that was deferred, an edge3 worker's own error text) belongs into the file too.
    job.log_complete = False
    log.upload = "none"
    session.add(chunk)
    session.flush()


def _chunk(job_id: str, claim: int, offset: int, packed: Packed, pushed_at: datetime | None) -> LogChunk:
    return LogChunk(
        job_id=job_id, claim=claim, offset=offset, length=packed.length, data=packed.data, pushed_at=pushed_at
    )
