"""What administrators want of workers: each change locks the row, is kept as an event, and is told at once to the
server that holds the worker's channel. None commits."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from edge_otel.errors import (
    BadInput,
    JobsUnsettled,
    NotInMaintenance,
    QueueNotAllowed,
    QueueNotServed,
    WorkerActive,
    WorkerGone,
)
from edge_otel.models import worker_log
from edge_otel.models.tables import Job, Token, Worker, WorkerEvent
from edge_otel.models.wakeup import announce_worker
from edge_otel.models.workers import change_state, locked, unknown
from edge_otel.reconcile import settled_by
from edge_otel.state import GONE, IN_MAINTENANCE, STOPPING, JobState, WorkerState
from edge_otel.wire import MAX_QUEUES, stopped_after

MAX_REPLACED = 20
"""Comments that are remembered of those that a worker may have heard, and no more counts."""


def request_maintenance(session: Session, name: str, comment: str | None, now: datetime, *, by: str) -> None:
    """Ask a worker to finish its jobs and take no more; one that is gone comes back in maintenance.
    One that is in maintenance keeps its comment where there is no other."""
    worker, before = _existing(session, name)
    if before in IN_MAINTENANCE | STOPPING:
        comment = comment or worker.maintenance_comment
    own = worker.maintenance_origin in ("local", "automatic")
    worker.maintenance_comment, worker.maintenance_origin = comment, "admin"
    worker.comments_replaced = None
    if before in GONE:
        after = WorkerState.OFFLINE_MAINTENANCE
    elif before is WorkerState.SHUTDOWN_REQUEST or (before in IN_MAINTENANCE and not own):
        after = before
    else:
        after = WorkerState.MAINTENANCE_REQUEST
    change_state(session, worker, before, after, now, _admin(by), detail=f"maintenance on: {comment or 'no comment'}")
    announce_worker(session, name)


def change_comment(session: Session, name: str, comment: str, now: datetime, *, by: str) -> None:
    """Change the comment on a worker's maintenance, whose it stays; or raise NotInMaintenance."""
    worker, state = _in_maintenance(session, name)
    if worker.maintenance_comment and worker.maintenance_origin != "admin":
        replaced = [*(worker.comments_replaced or ()), worker.maintenance_comment]
        # The first is what one that is gone will say.
        worker.comments_replaced = replaced[:1] + replaced[1:][-MAX_REPLACED:]
    worker.maintenance_comment = comment
    change_state(session, worker, state, state, now, _admin(by), detail=f"comment: {comment}")
    announce_worker(session, name)


def end_maintenance(session: Session, name: str, now: datetime, *, by: str) -> None:
    """End a worker's maintenance, or raise NotInMaintenance; or WorkerGone for one that comes back with its own."""
    worker, before = _in_maintenance(session, name)
    if before in GONE and worker.session is not None and worker.maintenance_origin in ("local", "automatic"):
        raise WorkerGone(
            f"Worker {name!r} is gone, and its maintenance is {worker.maintenance_origin}: end it at the site, or here"
            " when the worker is back."
        )
    worker.maintenance_comment = worker.maintenance_origin = worker.comments_replaced = None
    after = WorkerState.OFFLINE if before in GONE else WorkerState.MAINTENANCE_EXIT
    change_state(session, worker, before, after, now, _admin(by), detail="maintenance off")
    announce_worker(session, name)


def request_shutdown(session: Session, name: str, now: datetime, *, by: str) -> None:
    """Ask a worker to drain and stop."""
    worker, before = _connected(session, name)
    change_state(session, worker, before, WorkerState.SHUTDOWN_REQUEST, now, _admin(by), detail="shutdown")
    announce_worker(session, name)


def set_concurrency(session: Session, name: str, slots: int, now: datetime, *, by: str) -> None:
    """Set a connected worker's number of slots."""
    worker, state = _connected(session, name)
    before = worker.slots if worker.slots_wanted is None else worker.slots_wanted
    worker.slots_wanted = slots
    change_state(session, worker, state, state, now, _admin(by), detail=f"slots: {before} to {slots}")
    announce_worker(session, name)


def change_queues(
    session: Session, name: str, add: Iterable[str], drop: Iterable[str], now: datetime, *, by: str | None
) -> list[str] | None:
    """Change a connected worker's queues and return them. A worker of all queues (None) that gets one has only that;
    one that loses its last has none at all. Raise QueueNotAllowed for one that the worker's token does not allow.
    ``by`` is None where the worker itself asks."""
    worker, state = _connected(session, name)
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
    cause = "worker" if by is None else _admin(by)
    change_state(session, worker, state, state, now, cause, detail=f"queues: {_shown(worker.queues)}")
    announce_worker(session, name)
    return worker.queues


def drop_queues(session: Session, name: str, queues: Collection[str], now: datetime, *, by: str) -> list[str] | None:
    """Do the same for queues to drop, or raise QueueNotServed where the worker has none of them of its own."""
    served = _connected(session, name)[0].queues
    if served is None:
        raise QueueNotServed(
            f"Worker {name!r} serves every queue. First add those that it is to have: it has only them then."
        )
    if not set(queues) & set(served):
        raise QueueNotServed(f"Worker {name!r} does not serve {', '.join(queues)}: its queues are {_shown(served)}.")
    return change_queues(session, name, [], queues, now, by=by)


def remove(session: Session, name: str, now: datetime, *, dry_run: bool = False) -> None:
    """Forget a worker that is gone, with its events and the lines of its log; or raise WorkerActive, or JobsUnsettled
    while what becomes of its jobs depends on what only its row says."""
    worker, state = _existing(session, name)
    if state not in GONE:
        raise WorkerActive(f"Worker {name!r} is in state {state.value!r}. Shut it down first.")
    _check_settled(session, worker, now)
    if dry_run:
        # There may be a hundred thousand events to delete and to take back.
        return
    session.execute(delete(WorkerEvent).where(WorkerEvent.worker == name))
    worker_log.remove(session, name)
    session.delete(worker)


def _check_settled(session: Session, worker: Worker, now: datetime) -> None:
    running = select(func.count(), func.max(Job.changed_at)).where(
        Job.worker == worker.name, Job.state == JobState.RUNNING
    )
    count, changed_at = session.execute(running).one()
    if not count:
        return
    promise = stopped_after(worker.sysinfo)
    by = settled_by(max(worker.last_heartbeat, changed_at), worker.state_since, promise)
    minutes = math.ceil((by - now) / timedelta(minutes=1))
    if minutes <= 0 and promise is None:
        # What still runs waits for Airflow's heartbeat timeout, with the worker's row or without.
        return
    when = f"within {minutes} min" if minutes > 0 else "as soon as it runs"
    raise JobsUnsettled(
        f"Worker {worker.name!r} has running jobs that are not settled yet ({count})."
        f" The scheduler does that {when}: remove it then."
    )


def _shown(queues: list[str] | None) -> str:
    return "all" if queues is None else ", ".join(queues) or "none"


def _admin(user: str) -> str:
    return f"admin:{user}"


def _existing(session: Session, name: str) -> tuple[Worker, WorkerState]:
    worker = locked(session, name)
    if worker is None:
        raise unknown(name)
    return worker, WorkerState(worker.state)


def _in_maintenance(session: Session, name: str) -> tuple[Worker, WorkerState]:
    worker, state = _existing(session, name)
    if state not in IN_MAINTENANCE:
        raise NotInMaintenance(f"Worker {name!r} is in state {state.value!r}, not in maintenance.")
    return worker, state


def _connected(session: Session, name: str) -> tuple[Worker, WorkerState]:
    worker, state = _existing(session, name)
    if state in GONE:
        raise WorkerGone(f"Worker {name!r} is in state {state.value!r}: nobody is there to be told.")
    return worker, state
