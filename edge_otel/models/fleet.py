"""Queries on many connected workers at once, for a server that holds their channels. None commits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import flag_modified

from edge_otel.load_history import due
from edge_otel.models import tokens, worker_log, workers
from edge_otel.models.jobs import batches
from edge_otel.models.session import prepare_lock
from edge_otel.models.tables import Job, Token, Worker
from edge_otel.state import JobState
from edge_otel.wire import LogLine, WorkerReport

_BEAT = ("state", "jobs_active", "sysinfo", "slots", "heartbeat_interval", "last_heartbeat")
"""Written for each heartbeat, changed or not: updates of the same columns go to the database together."""


class Stored(NamedTuple):
    """What the database says of a connected worker: who it is, and what is wanted of it."""

    name: str
    session: str | None
    connection: str | None
    state: str
    queues: list[str] | None
    slots_wanted: int | None
    maintenance_comment: str | None
    maintenance_origin: str | None
    revoked_at: datetime | None
    expires_at: datetime | None
    """The last two are its token's."""


_STORED = (
    Worker.name,
    Worker.session,
    Worker.connection,
    Worker.state,
    Worker.queues,
    Worker.slots_wanted,
    Worker.maintenance_comment,
    Worker.maintenance_origin,
    Token.revoked_at,
    Token.expires_at,
)


@dataclass(frozen=True)
class Beat:
    """The latest heartbeat of one channel."""

    connection: str
    report: WorkerReport
    at: datetime
    trace_id: str | None
    lines: Sequence[tuple[str, LogLine]] = ()
    """Of the worker's log, each with its source: of this heartbeat, and of those before it that were not written."""


def stored(session: Session, names: Collection[str]) -> dict[str, Stored]:
    """Return what the database says of these workers, of those that exist."""
    found: dict[str, Stored] = {}
    for batch in batches(names):
        query = select(*_STORED).outerjoin(Token, Token.id == Worker.token_id).where(Worker.name.in_(batch))
        found |= {row.name: Stored._make(row) for row in session.execute(query)}
    return found


class Running(NamedTuple):
    """A claim of a job that a worker says it runs."""

    worker: str
    id: str
    claim: int


class Recorded(NamedTuple):
    """What the database says after heartbeats were written."""

    rows: dict[str, Stored]
    not_written: set[str]
    """Workers whose rows somebody else has locked."""
    not_held: list[Running]


def record_beats(session: Session, beats: Mapping[str, Beat]) -> Recorded:
    """Store the heartbeats of the channels that still count. Rows that are locked are not waited for."""
    not_written = set(beats)
    for batch in batches(beats):
        prepare_lock(session, Worker)
        query = select(Worker).where(Worker.name.in_(batch)).with_for_update(skip_locked=True)
        together: dict[tuple[str, ...], list[Worker]] = {}
        for worker in session.scalars(query.execution_options(populate_existing=True)):
            beat = beats[worker.name]
            not_written.remove(worker.name)
            if worker.connection == beat.connection:
                together.setdefault(_columns(worker, beat), []).append(worker)
        for columns, some in together.items():
            for worker in some:
                beat = beats[worker.name]
                workers.record_heartbeat(session, worker, beat.report, beat.at, trace_id=beat.trace_id)
                worker_log.append(session, worker, beat.lines)
                for name in columns:
                    flag_modified(worker, name)
            session.flush()
    rows = stored(session, beats)
    running = [
        Running(name, str(job.id), job.claim)
        for name, beat in beats.items()
        for job in beat.report.jobs or ()
        if job.slots
    ]
    return Recorded(rows, not_written & rows.keys(), not_held(session, running))


def _columns(worker: Worker, beat: Beat) -> tuple[str, ...]:
    """Return what is written for a heartbeat: most have no line of log, and no sample of the load is due."""
    sampled = ("load_history",) if due(worker.load_history, beat.at) else ()
    return _BEAT + sampled + (("log_end",) if beat.lines else ())


def record_token_uses(session: Session, names: Collection[str], now: datetime) -> None:
    """Remember that the tokens of these workers are in use."""
    for batch in batches(names):
        used = select(Worker.token_id).where(Worker.name.in_(batch), Worker.token_id.is_not(None))
        query = update(Token).where(Token.id.in_(used), tokens.unused_since(now)).values(last_used_at=now)
        session.execute(query.execution_options(synchronize_session=False))


class Reclaimed(NamedTuple):
    """A job that may run under an earlier claim than its row's."""

    claim: int
    holders: dict[str, str]
    revoked: int

    def ended(self, claim: int) -> bool:
        """Return whether nobody wants the process of this claim. That of a task which was deferred is about to end by
        itself."""
        return claim <= self.revoked or (claim < self.claim and str(claim) not in self.holders)


def reclaimed_since(session: Session, since: datetime) -> dict[str, Reclaimed]:
    """Return, by id, the jobs that changed at or after ``since`` and are not under their first claim."""
    query = select(Job.id, *(getattr(Job, name) for name in Reclaimed._fields))
    changed = session.execute(query.where(Job.changed_at >= since, Job.claim > 1))
    return {job_id: Reclaimed(*row) for job_id, *row in changed}


def not_held(session: Session, running: Collection[Running]) -> list[Running]:
    """Return those of the claims that workers run which are not theirs any more.

    One under which the task ran before it was deferred is: that process is about to end by itself.
    """
    rows: dict[str, Any] = {}
    for batch in batches({job.id for job in running}):
        query = select(Job.id, Job.claim, Job.worker, Job.state, Job.holders, Job.revoked).where(Job.id.in_(batch))
        rows |= {row.id: row for row in session.execute(query)}

    def held(job: Running) -> bool:
        row = rows.get(job.id)
        if row is None:
            return False
        current = row.claim == job.claim and row.worker == job.worker and row.state != JobState.QUEUED
        before = row.holders.get(str(job.claim)) == job.worker and job.claim > row.revoked
        return bool(current or before)

    return [job for job in running if not held(job)]


RECENT = timedelta(seconds=15)
"""How far back a look for withdrawn jobs reaches: over a late commit, and the clock of another host."""
