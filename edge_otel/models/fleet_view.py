"""The workers as people look at them: a filtered page of the fleet, and one worker with its history. None commits."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from edge_otel.models import job_view, worker_log, workers
from edge_otel.models.jobs import batches
from edge_otel.models.tables import Job, Worker
from edge_otel.selection import Selection
from edge_otel.state import GONE
from edge_otel.telemetry.fleet import HELD
from edge_otel.views import EventRow, LoadHistory, LogLine, WorkerDetail, WorkerRow, WorkersPage
from edge_otel.wire import stopped_after

LATE_INTERVALS = 2
"""Heartbeats that may be missing before a worker is called late; after five it is unknown."""

SortKey = Literal["name", "state", "since", "heartbeat", "jobs", "cpu", "memory", "disk"]
OfTeam = Callable[[str | None], bool]
"""Whether something holds for workers of a team; None: of no team."""


def anyone(team: str | None) -> bool:
    """Return that it holds for all."""
    return True


class Found(NamedTuple):
    """A worker as far as lists are filtered and sorted by it."""

    name: str
    state: str
    state_since: datetime
    team: str | None
    queues: list[str] | None
    last_heartbeat: datetime


_FOUND = tuple(getattr(Worker, name) for name in Found._fields)
_FACTS = {"cpu": "cpu_percent", "memory": "memory_percent", "disk": "disk_percent"}


def select_workers(session: Session, selection: Selection, sees: OfTeam = anyone) -> list[Found]:
    """Return the selected workers by name. Globs and lists of queues are beyond the SQL that all databases share: the
    whole fleet is read, six columns of it."""
    return [found for found in _matching(session, selection, sees) if selection.allows(found.state)]


def _matching(session: Session, selection: Selection, sees: OfTeam) -> list[Found]:
    rows = map(Found._make, session.execute(select(*_FOUND).order_by(Worker.name)))
    return [found for found in rows if selection.matches(found.name, found.queues, found.team) and sees(found.team)]


def page(
    session: Session,
    selection: Selection,
    now: datetime,
    *,
    sort: SortKey = "name",
    descending: bool = False,
    offset: int = 0,
    limit: int = 50,
    sees: OfTeam = anyone,
) -> WorkersPage:
    """Return ``limit`` of the selected workers from ``offset`` on. Those of which it is not known what they are sorted
    by come last; equals are by name."""
    matching = _matching(session, selection, sees)
    chosen = [found for found in matching if selection.allows(found.state)]
    key = _key(session, sort)
    known = sorted((found for found in chosen if key(found) is not None), key=key, reverse=descending)
    order = known + [found for found in chosen if key(found) is None]
    return WorkersPage(
        workers=rows(session, [found.name for found in order[offset : offset + limit]], now),
        total=len(chosen),
        states=Counter(found.state for found in matching),
        at=now,
    )


def _key(session: Session, sort: SortKey) -> Callable[[Found], Any]:
    if sort in _FACTS:
        query = select(Worker.name, Worker.sysinfo[_FACTS[sort]])
        told = {name: _percent(said) for name, said in session.execute(query)}
        return lambda found: told.get(found.name)
    if sort == "jobs":
        held = _held(session)
        return lambda found: held.get(found.name, (0, 0))[0]
    if sort == "heartbeat":
        # By age.
        return lambda found: -found.last_heartbeat.timestamp()
    column = {"name": "name", "state": "state", "since": "state_since"}[sort]
    return lambda found: getattr(found, column)


def rows(session: Session, names: Sequence[str], now: datetime) -> list[WorkerRow]:
    """Return these workers, in this order, of those that exist."""
    found: dict[str, Worker] = {}
    held: dict[str, tuple[int, int]] = {}
    for batch in batches(names):
        found |= {worker.name: worker for worker in session.scalars(select(Worker).where(Worker.name.in_(batch)))}
        held |= _held(session, Job.worker.in_(batch))
    return [_row(found[name], *held.get(name, (0, 0)), now) for name in names if name in found]


def _held(session: Session, *where: ColumnElement[bool]) -> dict[str, tuple[int, int]]:
    """Return, by worker, how many jobs it has and how many slots they hold; those without jobs are left out."""
    query = select(Job.worker, func.count(), func.sum(Job.slots)).where(Job.state.in_(HELD), *where)
    return {str(name): (jobs, int(slots)) for name, jobs, slots in session.execute(query.group_by(Job.worker))}


def _row(worker: Worker, jobs: int, slots_used: int, now: datetime) -> WorkerRow:
    facts, age = worker.sysinfo, max(0.0, (now - worker.last_heartbeat).total_seconds())
    health, silence = facts.get("status"), stopped_after(facts)
    return WorkerRow(
        name=worker.name,
        state=worker.state,
        state_since=worker.state_since,
        state_cause=worker.state_cause,
        team=worker.team,
        queues=worker.queues,
        slots=worker.slots if worker.slots_wanted is None else worker.slots_wanted,
        slots_used=slots_used,
        jobs=jobs,
        last_heartbeat=worker.last_heartbeat,
        heartbeat_age=age,
        heartbeat_interval=worker.heartbeat_interval,
        late=worker.state not in GONE and age > LATE_INTERVALS * worker.heartbeat_interval,
        transport="polling" if worker.connection is None else "channel",
        health=_HEALTH.get(health) if isinstance(health, int) else None,
        cpu_percent=_percent(facts.get("cpu_percent")),
        memory_percent=_percent(facts.get("memory_percent")),
        disk_percent=_percent(facts.get("disk_percent")),
        load_history=LoadHistory.model_validate(worker.load_history),
        clock_skew=_number(facts.get("clock_skew")),
        edge_version=str(facts.get("edge_provider_version", "")),
        airflow_version=str(facts.get("airflow_version", "")),
        maintenance_comment=worker.maintenance_comment,
        maintenance_origin=worker.maintenance_origin,
        jobs_stopped_after=None if silence is None else silence.total_seconds(),
        first_online=worker.first_online,
    )


_HEALTH = {20: "Info", 30: "Warning", 40: "Error"}
"""By the logging level that workers report."""


def detail(
    session: Session,
    name: str,
    now: datetime,
    *,
    dags: Collection[str] | None = None,
    teams: Collection[str] = (),
    logs: OfTeam = anyone,
    actions: bool = False,
) -> WorkerDetail:
    """Return one worker, or raise WorkerNotFound; of its jobs, those that may be read, as of ``job_view.page``; with
    ``actions``, of its history only what people did.

    The daemon's log and the traces of its heartbeats name jobs of any DAG: they are there where ``logs`` holds.
    """
    worker = workers.get(session, name)
    jobs, slots_used = _held(session, Job.worker == name).get(name, (0, 0))
    events = [
        EventRow.model_validate(event, from_attributes=True)
        for event in workers.events_of(session, name, actions=actions)
    ]
    hidden = not logs(worker.team)
    return WorkerDetail(
        worker=_row(worker, jobs, slots_used, now),
        facts=worker.sysinfo,
        token_id=worker.token_id,
        events=[event.model_copy(update={"trace_id": None}) for event in events] if hidden else events,
        jobs=job_view.of_worker(session, name, dags=dags, teams=teams),
        log=[
            LogLine(at=line.at, level=logging.getLevelName(line.level), logger=line.logger, text=line.text)
            for line in ([] if hidden else worker_log.tail(session, name))
        ],
        log_hidden=hidden,
        at=now,
    )


def _number(said: object) -> float | None:
    return float(said) if isinstance(said, int | float) and not isinstance(said, bool) and abs(said) < 1e9 else None


def _percent(said: object) -> float | None:
    number = _number(said)
    return number if number is not None and 0 <= number <= 100 else None
