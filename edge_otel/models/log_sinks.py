"""Queries on where logs go from the store: to Airflow's remote log, and line by line to the collector. Each log is one
server's for the time of a lease, so that nobody else sends it meanwhile. None commits."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, case, exists, func, or_, select, update
from sqlalchemy.orm import Session

from edge_otel.models import jobs, logs
from edge_otel.models.packed import unpacked
from edge_otel.models.session import prepare_lock
from edge_otel.models.tables import Job, Log, LogChunk

LOOK = 200
"""Most logs that one look for uploads touches. Most of them may be of deferred tasks."""
SOON, LATE = timedelta(seconds=5), timedelta(minutes=5)
"""Until a log is looked at again that was not taken, or whose task goes on or is not known to have ended yet: a quarter
of the time that it waits already, within these."""

Lengths = dict[int, int]
"""Bytes by claim number."""


class Upload(NamedTuple):
    """A log that is to be uploaded."""

    job_id: str
    known_as: str
    """The job's id, where the log has a key of its own."""
    path: str
    about: Mapping[str, Any]
    changed_at: datetime
    done: Lengths
    """What the remote log has."""
    aim: Lengths
    """What it has after this attempt."""
    doubtful: bool
    """An earlier attempt had the same aim, and may have reached it."""
    fault: str | None
    """What is wrong with it, in words."""
    lease: datetime


class Export(NamedTuple):
    """A log of which there are lines to send."""

    job_id: str
    known_as: str
    """The job's id, where the log has a key of its own."""
    about: Mapping[str, Any]
    carrier: Mapping[str, Any]
    places: dict[int, tuple[int, bool]]
    """Up to where they were sent, by claim number; and whether that is within a line that was cut off."""
    lease: datetime


class Stored(NamedTuple):
    """How much of a log there is to send."""

    lengths: Lengths
    over: bool
    """Nothing more comes."""


def claim_uploads(session: Session, now: datetime, lease: datetime, limit: int) -> list[Upload]:
    """Return logs whose upload is due, those that wait longest first; nobody else gets them before ``lease``.

    Those whose task will go on under its id are not whole: they wait, and take nobody's place.
    """
    # An API without a remote log needs none of Airflow's models.
    from edge_otel.models import task_instances

    due = Log.upload.in_(("due", "begun")), Log.path.is_not(None), or_(Log.upload_at.is_(None), Log.upload_at <= now)
    found = _due(session, due, func.coalesce(Log.upload_at, Log.changed_at), max(LOOK, limit))
    kept = task_instances.coming_back(session, [log.job_id for log in found])
    for log in found:
        if log.job_id in kept:
            log.upload_at = _later(log.changed_at, now)
    return [_begun(session, log, lease) for log in [log for log in found if log.job_id not in kept][:limit]]


def _begun(session: Session, log: Log, lease: datetime) -> Upload:
    done = _lengths(log.uploaded.get("done", {}))
    begun = log.uploaded.get("begun")
    aim = _lengths(begun) if begun is not None else logs.lengths(session, log.job_id)
    # Noted before the attempt: whoever comes after a crash asks the remote log before it sends anything again.
    log.upload, log.upload_at, log.uploaded = "begun", lease, {"done": done, "begun": aim}
    whose = log.job_id, log.known_as or log.job_id, log.path or "", log.about
    return Upload(*whose, log.changed_at, done, aim, begun is not None, log.fault, lease)


def _later(changed_at: datetime, now: datetime) -> datetime:
    """Return when a log is looked at again that has waited since it last changed."""
    return now + min(LATE, max(SOON, (now - changed_at) / 4))


def renew_upload(session: Session, upload: Upload, lease: datetime) -> None:
    """Keep the log for longer, if it is still ours."""
    _change(session, upload, upload_at=lease)


def note_uploaded(session: Session, upload: Upload) -> None:
    """Note that the remote log has what was the aim; if there is more by now, that is due next."""
    state = "done" if logs.lengths(session, upload.job_id) == upload.aim else "due"
    # One that goes on is none by now, and due when it is whole again.
    state_now = case((Log.upload == "begun", state), else_=Log.upload)
    _change(session, upload, upload=state_now, uploaded={"done": upload.aim}, upload_at=None)


def postpone_upload(session: Session, upload: Upload, now: datetime) -> None:
    """Leave the log for another attempt."""
    _change(session, upload, upload_at=_later(upload.changed_at, now))


def _change(session: Session, of: Upload, /, **values: Any) -> None:
    # The log may have got a key of its own meanwhile: its claims tell which one it is of those known by this id.
    moved = exists().where(LogChunk.job_id == Log.job_id, LogChunk.claim == min(of.aim, default=-1))
    for which in ((Log.job_id == of.job_id,), (Log.known_as == of.job_id, moved)):
        query = update(Log).where(*which, Log.upload_at == of.lease).values(**values)
        changed: Any = session.execute(query.execution_options(synchronize_session=False))
        if changed.rowcount:
            return


def claim_exports(session: Session, now: datetime, lease: datetime, limit: int) -> list[Export]:
    """Return logs with lines to send, those that were served longest ago first; nobody else gets them before
    ``lease``."""
    due = Log.export_due.is_(True), or_(Log.export_at.is_(None), Log.export_at <= now)
    found = _due(session, due, func.coalesce(Log.export_at, Log.created_at), limit)
    for number, log in enumerate(found):
        # Each has a lease of its own, by which it is found again should it get another key.
        log.export_at = lease + timedelta(microseconds=number)
    session.flush()
    return [
        Export(
            log.job_id,
            log.known_as or log.job_id,
            log.about,
            log.carrier,
            {int(claim): (at, cut) for claim, (at, cut) in log.exported.items()},
            log.export_at or lease,
        )
        for log in found
    ]


def holds(session: Session, export: Export) -> bool:
    """Return whether the log is still under this lease and key, so that what was read by them is its own."""
    ours = select(Log.job_id).where(Log.job_id == export.job_id, Log.export_at == export.lease)
    return session.scalar(ours) is not None


def stored(session: Session, job_id: str) -> Stored:
    """Return how much of the log is here."""
    job = session.get(Job, job_id)
    over = job is None or logs.all_here(session, job)
    return Stored(logs.lengths(session, job_id), over)


def bytes_from(session: Session, job_id: str, claim: int, offset: int, most: int) -> bytes:
    """Return the bytes of a claim's log from ``offset`` on: ``most``, or all that are here if those are fewer."""
    of_claim = LogChunk.job_id == job_id, LogChunk.claim == claim
    first = session.scalar(select(func.max(LogChunk.offset)).where(*of_claim, LogChunk.offset <= offset)) or 0
    # One by one: nobody knows how large administrators let a chunk be.
    found = bytearray()
    while len(found) < offset - first + most:
        data = _unpacked(session, job_id, claim, first + len(found))
        if data is None:
            break
        found += data
    return bytes(found[offset - first : offset - first + most])


_recent: deque[tuple[tuple[str, int, int], bytes]] = deque(maxlen=2)
"""The chunks that were unpacked last, with their keys: who sends a log reads smaller pieces."""


def _unpacked(session: Session, *key: Any) -> bytes | None:
    """Return the bytes of a chunk by its key."""
    for known, data in tuple(_recent):
        if known == key:
            return data
    of_chunk = zip((LogChunk.job_id, LogChunk.claim, LogChunk.offset), key, strict=True)
    packed = session.scalar(select(LogChunk.data).where(*(column == value for column, value in of_chunk)))
    if packed is None:
        return None
    data = unpacked(packed)
    _recent.append((key, data))
    return data


def note_exported(session: Session, export: Export, places: Mapping[int, tuple[int, bool]], now: datetime) -> None:
    """Note up to where the lines were sent, unless somebody else does it by now; the log may be had again."""
    exported = {str(claim): list(place) for claim, place in places.items()}
    # One after the other: the first waits for who gives the log another key, and only then the second finds it by that.
    for whose in (Log.job_id == export.job_id, Log.known_as == export.job_id):
        query = update(Log).where(whose, Log.export_at == export.lease).values(exported=exported, export_at=now)
        session.execute(query.execution_options(synchronize_session=False))


def rest_export(session: Session, job_id: str, places: Mapping[int, tuple[int, bool]], seen: Stored) -> None:
    """Let the log rest until there is more than was ``seen``, all of which was looked at.

    The job is locked for that: who appends does so too, and sees that the log rests.
    """
    jobs.lock(session, job_id)
    found = stored(session, job_id)
    sent = all(places.get(claim, (0, False))[0] >= length for claim, length in found.lengths.items())
    if sent or (found == seen and not seen.over):
        query = update(Log).where(Log.job_id == job_id).values(export_due=False)
        session.execute(query.execution_options(synchronize_session=False))


def orphan(session: Session, ids: Collection[str], now: datetime) -> None:
    """Let logs have their other homes as far as they are here, whose jobs go before the logs were whole."""
    partial = update(Log).where(Log.job_id.in_(ids), Log.upload == "none")
    values = {"upload": "due", "export_due": True, "changed_at": now}
    session.execute(partial.values(values).execution_options(synchronize_session=False))


def _due(session: Session, due: Collection[ColumnElement[bool]], order: ColumnElement[Any], limit: int) -> list[Log]:
    """Return logs that are due, locked; what another is taking is passed over."""
    prepare_lock(session, Log)
    query = select(Log).where(*due).order_by(order).limit(limit)
    return list(session.scalars(query.with_for_update(skip_locked=True)))


def _lengths(stored: Mapping[str, int]) -> Lengths:
    return {int(claim): length for claim, length in stored.items()}
