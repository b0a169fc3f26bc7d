"""Jobs as people look at them: filtered pages, and those of one worker. None commits."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints
from sqlalchemy import ColumnElement, Select, case, func, or_, select
from sqlalchemy.orm import Session

from edge_otel.models.tables import Job
from edge_otel.state import FINISHED, JobState
from edge_otel.telemetry import context
from edge_otel.views import JobRow, JobsPage
from edge_otel.wire import Queue, Team

Part = Annotated[str, StringConstraints(max_length=250, pattern=r"^[^\x00]*$")]

_COLUMNS = tuple(getattr(Job, name) for name in JobRow.model_fields if name != "trace_id")
"""Not the workload: it is long, and holds a token."""


class JobFilter(BaseModel):
    """All that is given must be met; of states, any. ``queue_is``, ``worker_is`` and ``team`` are whole names, and
    ``teamless`` means jobs of no team; the other texts are parts, upper or lower case."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    states: list[JobState] = []
    dag_id: Part = ""
    task_id: Part = ""
    run_id: Part = ""
    queue: Part = ""
    worker: Part = ""
    queue_is: Queue | None = None
    worker_is: Part = ""
    team: Team | None = None
    teamless: bool = False

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the filter in SQL, all of it but the states."""
        wanted: list[ColumnElement[bool]] = []
        for name in ("dag_id", "task_id", "run_id", "queue", "worker"):
            part = getattr(self, name)
            if part:
                wanted.append(getattr(Job, name).icontains(part, autoescape=True))
        whole = {Job.queue: self.queue_is, Job.worker: self.worker_is, Job.team: self.team}
        wanted += [column == name for column, name in whole.items() if name]
        return [*wanted, Job.team.is_(None)] if self.teamless else wanted


def page(
    session: Session,
    wanted: JobFilter,
    now: datetime,
    *,
    dags: Collection[str] | None = None,
    teams: Collection[str] = (),
    offset: int = 0,
    limit: int = 50,
) -> JobsPage:
    """Return ``limit`` of the jobs from ``offset`` on, the last queued first.

    Of tasks, those of these DAGs. Callbacks and connection tests name none: of them, those of no team and of these
    teams. With ``dags`` None, all.
    """
    conditions = [*wanted.conditions(), *_readable(dags, teams)]
    counted = select(Job.state, func.count()).where(*conditions).group_by(Job.state)
    states = {state: int(many) for state, many in session.execute(counted)}
    if wanted.states:
        conditions.append(Job.state.in_(wanted.states))
    total = sum(many for state, many in states.items() if not wanted.states or state in wanted.states)
    query = select(*_COLUMNS, Job.carrier).where(*conditions).order_by(Job.queued_at.desc(), Job.id)
    return JobsPage(jobs=_rows(session, query.offset(offset).limit(limit)), total=total, states=states, at=now)


def of_worker(
    session: Session,
    name: str,
    *,
    dags: Collection[str] | None = None,
    teams: Collection[str] = (),
    limit: int = 50,
) -> list[JobRow]:
    """Return the jobs that a worker has, then those that it had; which may be read, as of ``page``."""
    over = case((Job.state.in_(FINISHED), 1), else_=0)
    query = select(*_COLUMNS, Job.carrier).where(Job.worker == name, *_readable(dags, teams))
    return _rows(session, query.order_by(over, Job.changed_at.desc(), Job.id).limit(limit))


def _readable(dags: Collection[str] | None, teams: Collection[str]) -> list[ColumnElement[bool]]:
    if dags is None:
        return []
    # A DAG may have the name under which callbacks are known.
    task = Job.kind == "task"
    return [or_(task & Job.dag_id.in_(dags), ~task & (Job.team.is_(None) | Job.team.in_(teams)))]


def _rows(session: Session, query: Select[Any]) -> list[JobRow]:
    return [
        JobRow.model_validate({**row, "trace_id": context.trace_id(row["carrier"])})
        for row in session.execute(query).mappings()
    ]
