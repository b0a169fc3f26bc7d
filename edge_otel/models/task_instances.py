"""What Airflow's own tables say about the tasks behind jobs."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancehistory import TaskInstanceHistory
from sqlalchemy import select
from sqlalchemy.orm import Session

_OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


def coming_back(session: Session, ids: Collection[str]) -> set[str]:
    """Return those of the ids whose task may run again under the same id: it is deferred, rescheduled, or waits."""
    return {job_id for job_id, (state, _) in states(session, ids).items() if state not in _OVER}


def id_of_try(session: Session, current: Any) -> str | None:
    """Return the id that a task instance had when it ran under its try number: one that is to be retried, or was
    cleared, has a new id already."""
    history = TaskInstanceHistory
    names = ("dag_id", "task_id", "run_id", "map_index", "try_number")
    same = [getattr(history, name) == getattr(current, name) for name in names]
    found = session.scalar(select(history.task_instance_id).where(*same))
    return None if found is None else str(found)


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
