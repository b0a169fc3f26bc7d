"""Carries an action out on the workers that somebody selected: in batches, so that no heartbeat waits for long."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime

from edge_otel.actions import (
    Action,
    AddQueues,
    MaintenanceComment,
    MaintenanceOff,
    MaintenanceOn,
    Outcome,
    Remove,
    RemoveQueues,
    SetConcurrency,
    Shutdown,
)
from edge_otel.errors import EdgeError
from edge_otel.models import audit, fleet_view, wishes, workers
from edge_otel.models.database import DatabaseFailure, explain
from edge_otel.models.fleet_view import OfTeam, anyone
from edge_otel.models.session import Session, hasty_session, new_session
from edge_otel.selection import Selection

log = logging.getLogger(__name__)

BATCH = 50
"""Workers whose rows are locked at once."""


def carry_out(
    selection: Selection,
    action: Action,
    *,
    by: str,
    dry_run: bool = False,
    sees: OfTeam = anyone,
    permits: OfTeam = anyone,
) -> Iterator[Outcome]:
    """Yield what became of each worker, by name. Each batch is committed before the next one begins.

    ``sees`` says whether workers of a team are there for ``by``, and ``permits`` whether these obey. A dry run does the
    same, and takes it back.
    """
    with new_session() as session:
        chosen = fleet_view.select_workers(session, selection, sees)
        absent = selection.exact_names.difference(found.name for found in chosen)
        others = {found.name for found in fleet_view.select_workers(session, Selection(), sees)} if absent else set()
    yield from (
        Outcome(worker=name, done=False, text=_UNMATCHED if name in others else _UNKNOWN) for name in sorted(absent)
    )
    yield from (Outcome(worker=f.name, done=False, text=_NOT_YOURS) for f in chosen if not permits(f.team))
    names = [found.name for found in chosen if permits(found.team)]
    for start in range(0, len(names), BATCH):
        yield from _batch(names[start : start + BATCH], action, by, dry_run)


def _batch(names: list[str], action: Action, by: str, dry_run: bool) -> list[Outcome]:
    """Do it in one transaction. What others hold locked is not waited for without end, and then none of it is done."""
    try:
        with hasty_session() as session:
            outcomes = [_one(session, name, action, by, dry_run) for name in names]
            done = [outcome.worker for outcome in outcomes if outcome.done]
            if dry_run:
                session.rollback()
            elif done:
                # Of what is too long the end is cut off.
                audit.record(session, f"edge_worker_{action.kind}", by, workers=done, **action.model_dump())
    except DatabaseFailure as failure:
        # Those before it are done, which an error of the whole would not say.
        log.error("Workers %s to %s were not changed: %s", names[0], names[-1], failure.orig)  # noqa: TRY400
        outcomes = [Outcome(worker=name, done=False, text=explain(failure).detail) for name in names]
    return outcomes


_UNKNOWN = "No worker of this name is registered."
_UNMATCHED = "It is not what else was selected: another state, queue or team."
_NOT_YOURS = "Your role may look at this worker, not change it: that needs the right to edit pools."


def _one(session: Session, name: str, action: Action, by: str, dry_run: bool) -> Outcome:
    try:
        return Outcome(worker=name, done=True, text=_perform(session, name, action, datetime.now(UTC), by, dry_run))
    except EdgeError as error:
        return Outcome(worker=name, done=False, text=error.detail)


def _perform(session: Session, name: str, action: Action, now: datetime, by: str, dry_run: bool) -> str:
    """Do it, and return how the worker stands now."""
    match action:
        case MaintenanceOn():
            wishes.request_maintenance(session, name, action.comment, now, by=by)
        case MaintenanceOff():
            wishes.end_maintenance(session, name, now, by=by)
        case MaintenanceComment():
            wishes.change_comment(session, name, action.comment, now, by=by)
            return f"comment: {action.comment}"
        case Shutdown():
            wishes.request_shutdown(session, name, now, by=by)
        case AddQueues():
            return _served(wishes.change_queues(session, name, action.queues, [], now, by=by))
        case RemoveQueues():
            return _served(wishes.drop_queues(session, name, action.queues, now, by=by))
        case SetConcurrency():
            wishes.set_concurrency(session, name, action.slots, now, by=by)
            return f"{action.slots} slots"
        case Remove():
            wishes.remove(session, name, now, dry_run=dry_run)
            return "removed"
    return workers.get(session, name).state


def _served(queues: list[str] | None) -> str:
    return "queues: " + ("all" if queues is None else ", ".join(queues) or "none")
