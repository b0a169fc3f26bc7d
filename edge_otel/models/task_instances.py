"""What Airflow's own tables say about the tasks behind jobs."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from airflow.models.taskinstance import TaskInstance
from sqlalchemy import select
from sqlalchemy.orm import Session

_OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


def coming_back(session: Session, ids: Collection[str]) -> set[str]:
    """Return those of the ids whose task may run again under the same id: it is deferred, rescheduled, or waits."""
    return {job_id for job_id, (state, _) in states(session, ids).items() if state not in _OVER}


def states(session: Session, ids: Collection[str]) -> dict[str, tuple[str | None, datetime | None]]:
    """Return state and end time by id; an id that is missing is no current try of a task any more."""
    if not ids:
        return {}
    rows = session.execute(
        select(TaskInstance.id, TaskInstance.state, TaskInstance.end_date).where(
            TaskInstance.id.in_([UUID(i) for i in ids])
        )
    )
    return {str(row.id): (row.state, row.end_date) for row in rows}
