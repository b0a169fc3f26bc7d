"""Queries on workers and their events. Each takes a session and ``now``; none commits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from edge_otel.errors import (
    NameTaken,
    SessionReplaced,
    WorkerNotFound,
)
from edge_otel.load_history import extended
from edge_otel.models import worker_log
from edge_otel.models.session import insert_missing, prepare_lock
from edge_otel.models.tables import Token, Worker, WorkerEvent
from edge_otel.reconcile import SILENT_INTERVALS, silent_since
from edge_otel.state import GONE, IN_MAINTENANCE, STOPPING, WorkerState, expire, settle
from edge_otel.wire import MAX_COMMENT, WorkerReport

EVENT_PURGE_LIMIT = 1000
MAX_DETAIL = 1280
"""Characters: a comment, and what is said of it."""


def register(
    session: Session,
    name: str,
    report: WorkerReport,
    now: datetime,
    *,
    token_id: str | None,
    team: str | None,
    heartbeat_interval: float,
    trace_id: str | None,
    connection: str | None = None,
) -> Worker:
    """Store a worker that starts or connects. The same token takes its name over at once; another is refused with
    NameTaken while the worker is active, and edge3 workers (no token of their own) are refused likewise. So is who is
    not of the worker's team, until that is removed."""
    worker = _locked_or_new(session, name, now, heartbeat_interval)
    before = WorkerState(worker.state) if worker.sysinfo else None
    if before is not None:
        if worker.team != team:
            # Its history and its log are kept by name, and name that team's jobs.
            raise NameTaken(
                f"Worker {name!r} is of another team, or of none, and its history and log are not for this one's."
                " Remove it first, or give this one another name."
            )
        silent = worker.last_heartbeat < silent_since(now, worker.heartbeat_interval)
        if before not in GONE and not silent and not _succeeds(session, token_id, worker.token_id):
            raise NameTaken(
                f"Worker {name!r} is active in state {before.value!r}. Stop it first, or give this one another name."
                f" If it died, its name is free {SILENT_INTERVALS * worker.heartbeat_interval:g} s after its last"
                " heartbeat."
            )
    if report.session is None or (report.session, token_id) != (worker.session, worker.token_id):
        worker.queues = report.queues
    # Else the same daemon has connected again, and may not have heard yet what an administrator has changed.
    worker.team = team
    worker.token_id, worker.session, worker.connection = token_id, report.session, connection
    worker.heartbeat_interval = heartbeat_interval
    _apply(session, worker, before, report, now, cause="registered", trace_id=trace_id)
    worker_log.append(session, worker, report.logged)
    return worker


def _locked_or_new(session: Session, name: str, now: datetime, heartbeat_interval: float) -> Worker:
    """Return the worker, locked; one that was not there has no facts yet. Of many that come at once one is first."""
    blank: dict[str, Any] = {
        "state": WorkerState.UNKNOWN,
        "sysinfo": {},
        "heartbeat_interval": heartbeat_interval,
        "first_online": now,
        "state_since": now,
        "state_cause": "registered",
        "last_heartbeat": now,
    }
    while True:
        # Before the lock: on MySQL, a lock on a row that is missing lets two inserts wait for each other.
        insert_missing(session, Worker, name=name, **blank)
        worker = locked(session, name)
        if worker is not None:
            return worker


def _succeeds(session: Session, token_id: str | None, held: str | None) -> bool:
    """Return whether a token is the one that a worker holds, or the one that it was rotated to."""
    if token_id is None or held is None or token_id == held:
        return token_id is not None and token_id == held
    token = session.get(Token, held)
    return token is not None and token.rotated_to == token_id


def heartbeat(
    session: Session, name: str, report: WorkerReport, now: datetime, *, token_id: str | None, trace_id: str | None
) -> Worker:
    """Store what a worker reports of itself, merged with what administrators asked for."""
    worker = locked(session, name)
    if worker is None:
        raise WorkerNotFound(f"No worker {name!r} is registered. Start it again to register it.")
    if worker.session != report.session:
        raise SessionReplaced
    worker.token_id = token_id
    record_heartbeat(session, worker, report, now, trace_id=trace_id)
    worker_log.append(session, worker, report.logged)
    return worker


def record_heartbeat(
    session: Session, worker: Worker, report: WorkerReport, now: datetime, *, trace_id: str | None
) -> None:
    """Store a heartbeat in a locked row."""
    worker.heartbeat_interval = report.heartbeat_interval or worker.heartbeat_interval
    _apply(session, worker, WorkerState(worker.state), report, now, cause="heartbeat", trace_id=trace_id)


def _apply(
    session: Session,
    worker: Worker,
    before: WorkerState | None,
    report: WorkerReport,
    now: datetime,
    *,
    cause: str,
    trace_id: str | None,
) -> None:
    theirs, ended = worker.maintenance_origin == "admin", _remembers_ended(worker, report)
    stored = before or WorkerState.UNKNOWN
    if ended and before in (WorkerState.OFFLINE, WorkerState.UNKNOWN):
        stored = WorkerState.MAINTENANCE_EXIT
    elif theirs and before is WorkerState.OFFLINE_MAINTENANCE and report.state not in GONE | STOPPING:
        # It was lost before it obeyed; or it ended by itself what it had no say in.
        stored = WorkerState.MAINTENANCE_REQUEST
    after = settle(stored, report.state)
    if theirs and after is WorkerState.OFFLINE and before in STOPPING | {WorkerState.OFFLINE_MAINTENANCE}:
        # It has heard of the shutdown, and not of the maintenance; and may say so twice.
        after = WorkerState.OFFLINE_MAINTENANCE
    elif ended and after is WorkerState.OFFLINE_MAINTENANCE and before in STOPPING | {WorkerState.MAINTENANCE_EXIT}:
        after = WorkerState.OFFLINE
    # A worker that still calls it its own has not heard yet that an administrator has made it theirs. Once it has
    # obeyed, a person at the site may.
    obeyed = before in (WorkerState.MAINTENANCE_PENDING, WorkerState.MAINTENANCE_MODE)
    own = report.maintenance_origin
    unheard = theirs and (own == "automatic" or (own == "local" and not obeyed))
    if unheard and after in IN_MAINTENANCE and after not in GONE:
        after = WorkerState.MAINTENANCE_REQUEST
    change_state(session, worker, before, after, now, cause, trace_id)
    if after not in IN_MAINTENANCE and not (theirs and after in STOPPING):
        worker.maintenance_comment = worker.maintenance_origin = worker.comments_replaced = None
    elif not unheard and (own or not theirs):
        # Without an origin it only says what an administrator has written, as it heard it.
        said = report.maintenance_comments
        if said and said != worker.maintenance_comment and said in (worker.comments_replaced or ()):
            said = _beside(worker.maintenance_comment or "", said) if report.session is None else None
        elif said:
            worker.comments_replaced = None
        changed = said and said != worker.maintenance_comment
        worker.maintenance_comment = said or worker.maintenance_comment
        if changed or own:
            worker.maintenance_origin = own or worker.maintenance_origin or "local"
    worker.jobs_active, worker.sysinfo = report.jobs_active, dict(report.sysinfo)
    worker.load_history = extended(worker.load_history, report.sysinfo, now, worker.heartbeat_interval)
    worker.slots = report.slots
    worker.last_heartbeat = now


def _remembers_ended(worker: Worker, report: WorkerReport) -> bool:
    """Return whether a worker says that it is in an administrator's maintenance, and there is none (any more)."""
    # Of that alone a daemon does not say whose it is.
    said = report.session is not None and report.maintenance_origin is None and report.state in IN_MAINTENANCE
    return said and worker.maintenance_origin is None


def _beside(comment: str, own: str) -> str:
    """Return an administrator's comment with that of a worker of edge3, if there is room: by the words of its own it
    knows an automatic maintenance, which it is to end when it is well. So does edge3's server."""
    both = f"{comment}\n\n{own}"
    return comment if own in comment or len(both) > MAX_COMMENT else both


def change_state(
    session: Session,
    worker: Worker,
    before: WorkerState | None,
    after: WorkerState,
    now: datetime,
    cause: str,
    trace_id: str | None = None,
    detail: str | None = None,
) -> None:
    """Store the state of a locked worker, and keep as an event what changed; ``detail``: what an administrator did."""
    worker.state = after
    if before is not after:
        worker.state_since, worker.state_cause = now, cause[:256]
    elif detail is None:
        return
    session.add(
        WorkerEvent(
            worker=worker.name,
            from_state=before,
            to_state=after,
            at=now,
            cause=cause[:256],
            detail=detail[:MAX_DETAIL] if detail else None,
            trace_id=trace_id,
        )
    )


def locked(session: Session, name: str) -> Worker | None:
    """Return the worker, locked until the transaction ends."""
    prepare_lock(session, Worker)
    # What this transaction has changed already would be read over: Airflow's sessions do not flush before a query.
    session.flush()
    return session.scalar(
        select(Worker).where(Worker.name == name).with_for_update().execution_options(populate_existing=True)
    )


def get(session: Session, name: str) -> Worker:
    """Return the worker, or raise WorkerNotFound."""
    worker = session.get(Worker, name)
    if worker is None:
        raise unknown(name)
    return worker


def session_of(session: Session, name: str) -> str | None:
    """Return the session of the daemon that was the last to register under this name."""
    return session.scalar(select(Worker.session).where(Worker.name == name))


def unknown(name: str) -> WorkerNotFound:
    """Return the error that says that there is no such worker."""
    return WorkerNotFound(f"No worker {name!r} is registered.")


def every(session: Session) -> Sequence[Worker]:
    """Return all workers by name."""
    return session.scalars(select(Worker).order_by(Worker.name)).all()


def events_of(session: Session, name: str, limit: int = 100, *, actions: bool = False) -> Sequence[WorkerEvent]:
    """Return the worker's latest events, newest first; with ``actions`` only what people did to it."""
    query = select(WorkerEvent).where(WorkerEvent.worker == name)
    if actions:
        query = query.where(WorkerEvent.cause.startswith("admin:"))
    # The index finds them by time: a busy worker has a hundred thousand. Who waited for the row took his time before.
    found = session.scalars(query.order_by(WorkerEvent.at.desc(), WorkerEvent.id.desc()).limit(limit))
    return sorted(found, key=lambda event: event.id, reverse=True)


def expire_silent(session: Session, interval: float, now: datetime) -> list[str]:
    """Mark workers as gone that have been silent for too long; return their names. ``interval``: seconds, the
    configured one; a worker that was told a longer one has longer."""
    prepare_lock(session, Worker)
    silent = session.scalars(
        select(Worker)
        .where(Worker.state.not_in(GONE), Worker.last_heartbeat < silent_since(now, interval))
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).all()
    expired = [w for w in silent if w.last_heartbeat < silent_since(now, w.heartbeat_interval)]
    for worker in expired:
        before = WorkerState(worker.state)
        # Who was to stop may be in maintenance, too.
        after = WorkerState.OFFLINE_MAINTENANCE if worker.maintenance_origin else expire(before)
        change_state(session, worker, before, after, now, "expired")
    # Airflow's sessions do not flush before a query, and the caller goes on to look for the jobs of these.
    session.flush()
    return [worker.name for worker in expired]


def purge_events(session: Session, before: datetime) -> int:
    """Delete events older than ``before``, at most EVENT_PURGE_LIMIT of them; return how many."""
    old = session.scalars(
        select(WorkerEvent.id).where(WorkerEvent.at < before).order_by(WorkerEvent.at).limit(EVENT_PURGE_LIMIT)
    ).all()
    if old:
        session.execute(delete(WorkerEvent).where(WorkerEvent.id.in_(old)))
    return len(old)
