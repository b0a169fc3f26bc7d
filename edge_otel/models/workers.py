"""Queries on workers and their events. Each takes a session and ``now``; none commits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from edge_otel.errors import (
    BadInput,
    NameTaken,
    QueueNotAllowed,
    SessionReplaced,
    WorkerActive,
    WorkerGone,
    WorkerNotFound,
)
from edge_otel.models.session import insert_missing, prepare_lock
from edge_otel.models.tables import Token, Worker, WorkerEvent
from edge_otel.models.wakeup import announce_worker
from edge_otel.reconcile import SILENT_INTERVALS, silent_since
from edge_otel.state import GONE, IN_MAINTENANCE, WorkerState, expire, settle
from edge_otel.wire import MAX_QUEUES, WorkerReport

EVENT_PURGE_LIMIT = 1000


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
    NameTaken while the worker is active, and edge3 workers (no token of their own) are refused likewise."""
    worker = _locked_or_new(session, name, now, heartbeat_interval)
    before = WorkerState(worker.state) if worker.sysinfo else None
    if before is not None:
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
    if before is WorkerState.OFFLINE_MAINTENANCE and worker.maintenance_origin == "admin":
        # It was lost before it obeyed; or it ended by itself what it had no say in.
        before = WorkerState.MAINTENANCE_REQUEST
    _apply(session, worker, before, report, now, cause="registered", trace_id=trace_id)
    return worker


def _locked_or_new(session: Session, name: str, now: datetime, heartbeat_interval: float) -> Worker:
    """Return the worker, locked; one that was not there has no facts yet. Of many that come at once one is first."""
    blank: dict[str, Any] = {
        "state": WorkerState.UNKNOWN,
        "sysinfo": {},
        "heartbeat_interval": heartbeat_interval,
        "first_online": now,
        "last_heartbeat": now,
    }
    while True:
        # Before the lock: on MySQL, a lock on a row that is missing lets two inserts wait for each other.
        insert_missing(session, Worker, name=name, **blank)
        worker = _locked(session, name)
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
    worker = _locked(session, name)
    if worker is None:
        raise WorkerNotFound(f"No worker {name!r} is registered. Start it again to register it.")
    if worker.session != report.session:
        raise SessionReplaced
    worker.token_id = token_id
    record_heartbeat(session, worker, report, now, trace_id=trace_id)
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
    after = settle(before or WorkerState.UNKNOWN, report.state)
    # A worker that still calls it automatic has not heard yet that an administrator has made it theirs.
    unheard = worker.maintenance_origin == "admin" and report.maintenance_origin == "automatic"
    if unheard and after in IN_MAINTENANCE and after not in GONE:
        after = WorkerState.MAINTENANCE_REQUEST
    _change_state(session, worker, before, after, now, cause, trace_id)
    if after not in IN_MAINTENANCE:
        worker.maintenance_comment = worker.maintenance_origin = None
    elif not unheard:
        changed = report.maintenance_comments and report.maintenance_comments != worker.maintenance_comment
        worker.maintenance_comment = report.maintenance_comments or worker.maintenance_comment
        if changed or report.maintenance_origin:
            worker.maintenance_origin = report.maintenance_origin or worker.maintenance_origin or "local"
    worker.jobs_active, worker.sysinfo = report.jobs_active, dict(report.sysinfo)
    worker.slots = report.slots
    worker.last_heartbeat = now


def _change_state(
    session: Session,
    worker: Worker,
    before: WorkerState | None,
    after: WorkerState,
    now: datetime,
    cause: str,
    trace_id: str | None = None,
) -> None:
    worker.state = after
    if before is not after:
        session.add(
            WorkerEvent(
                worker=worker.name, from_state=before, to_state=after, at=now, cause=cause[:256], trace_id=trace_id
            )
        )


def _locked(session: Session, name: str) -> Worker | None:
    prepare_lock(session, Worker)
    return session.scalar(
        select(Worker).where(Worker.name == name).with_for_update().execution_options(populate_existing=True)
    )


def get(session: Session, name: str) -> Worker:
    """Return the worker, or raise WorkerNotFound."""
    worker = session.get(Worker, name)
    if worker is None:
        raise WorkerNotFound(f"No worker {name!r} is registered.")
    return worker


def every(session: Session) -> Sequence[Worker]:
    """Return all workers by name."""
    return session.scalars(select(Worker).order_by(Worker.name)).all()


def events_of(session: Session, name: str, limit: int = 100) -> Sequence[WorkerEvent]:
    """Return the worker's latest events, newest first."""
    return session.scalars(
        select(WorkerEvent).where(WorkerEvent.worker == name).order_by(WorkerEvent.id.desc()).limit(limit)
    ).all()


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
        _change_state(session, worker, before, expire(before), now, "expired")
    # Airflow's sessions do not flush before a query, and the caller goes on to look for the jobs of these.
    session.flush()
    return [worker.name for worker in expired]


def request_maintenance(session: Session, name: str, comment: str | None, now: datetime, *, by: str) -> None:
    """Ask a worker to finish its jobs and take no more; one that is gone comes back in maintenance."""
    worker, before = _existing(session, name)
    automatic = worker.maintenance_origin == "automatic"
    worker.maintenance_comment, worker.maintenance_origin = comment, "admin"
    if before in GONE:
        after = WorkerState.OFFLINE_MAINTENANCE
    elif before in IN_MAINTENANCE and not automatic:
        after = before
    else:
        after = WorkerState.MAINTENANCE_REQUEST
    _change_state(session, worker, before, after, now, f"admin:{by}")
    announce_worker(session, name)


def end_maintenance(session: Session, name: str, now: datetime, *, by: str) -> None:
    """End a worker's maintenance."""
    worker, before = _existing(session, name)
    if before not in IN_MAINTENANCE:
        return
    worker.maintenance_comment = worker.maintenance_origin = None
    after = WorkerState.OFFLINE if before in GONE else WorkerState.MAINTENANCE_EXIT
    _change_state(session, worker, before, after, now, f"admin:{by}")
    announce_worker(session, name)


def request_shutdown(session: Session, name: str, now: datetime, *, by: str) -> None:
    """Ask a worker to drain and stop."""
    worker, before = _connected(session, name)
    _change_state(session, worker, before, WorkerState.SHUTDOWN_REQUEST, now, f"admin:{by}")
    announce_worker(session, name)


def set_concurrency(session: Session, name: str, slots: int) -> None:
    """Set a connected worker's number of slots."""
    worker, _ = _connected(session, name)
    worker.slots_wanted = slots
    announce_worker(session, name)


def change_queues(session: Session, name: str, add: Iterable[str], drop: Iterable[str]) -> list[str] | None:
    """Change a connected worker's queues and return them. A worker of all queues (None) that gets one has only that;
    one that loses its last has none at all. Raise QueueNotAllowed for one that the worker's token does not allow."""
    worker, _ = _connected(session, name)
    add, drop = list(add), set(drop)
    token = session.get(Token, worker.token_id) if worker.token_id else None
    if token is not None and token.queues is not None and not set(add) <= set(token.queues):
        raise QueueNotAllowed(
            f"The token of worker {name!r} allows only the queues {', '.join(token.queues)}. Create another token."
        )
    if add or worker.queues is not None:
        queues = [q for q in dict.fromkeys([*(worker.queues or []), *add]) if q not in drop]
        if len(queues) > MAX_QUEUES:
            raise BadInput(f"Worker {name!r} would have {len(queues)} queues; {MAX_QUEUES} are allowed.")
        worker.queues = queues
    announce_worker(session, name)
    return worker.queues


def remove(session: Session, name: str) -> None:
    """Forget a worker that is gone, with its events."""
    worker, state = _existing(session, name)
    if state not in GONE:
        raise WorkerActive(f"Worker {name!r} is in state {state.value!r}. Shut it down first.")
    session.execute(delete(WorkerEvent).where(WorkerEvent.worker == name))
    session.delete(worker)


def purge_events(session: Session, before: datetime) -> int:
    """Delete events older than ``before``, at most EVENT_PURGE_LIMIT of them; return how many."""
    old = session.scalars(
        select(WorkerEvent.id).where(WorkerEvent.at < before).order_by(WorkerEvent.at).limit(EVENT_PURGE_LIMIT)
    ).all()
    if old:
        session.execute(delete(WorkerEvent).where(WorkerEvent.id.in_(old)))
    return len(old)


def _existing(session: Session, name: str) -> tuple[Worker, WorkerState]:
    worker = _locked(session, name)
    if worker is None:
        raise WorkerNotFound(f"No worker {name!r} is registered.")
    return worker, WorkerState(worker.state)


def _connected(session: Session, name: str) -> tuple[Worker, WorkerState]:
    worker, state = _existing(session, name)
    if state in GONE:
        raise WorkerGone(f"Worker {name!r} is in state {state.value!r}: nobody is there to be told.")
    return worker, state
