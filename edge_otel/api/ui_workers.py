"""``ui/``: the workers and queues of the fleet page, and what is done to workers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from edge_otel.actions import Action, Outcome
from edge_otel.api.refusals import UI_RESPONSES
from edge_otel.api.ui_access import Actor, Reader
from edge_otel.errors import BadInput, NotPermitted
from edge_otel.models import fleet_view, queue_view, workers
from edge_otel.models.job_view import Part
from edge_otel.models.session import new_session
from edge_otel.operate import carry_out
from edge_otel.selection import NameGlobs, QueueGlobs, Search, Selection
from edge_otel.state import WorkerState
from edge_otel.views import QueuesPage, WorkerDetail, WorkersPage
from edge_otel.wire import Team, WorkerName

router = APIRouter(prefix="/ui", tags=["Fleet page"], responses=UI_RESPONSES)


class WorkerQuery(BaseModel):
    """Which workers, in which order, and which page of them."""

    model_config = ConfigDict(extra="forbid")

    name: NameGlobs = Field([], description="Name, or a glob such as `site7-*`")
    queue: QueueGlobs = Field([], description="Served queue, or a glob; a worker of every queue serves each")
    state: list[WorkerState] = []
    team: Team | None = None
    search: Search = Field("", description="Part of the name")
    sort: fleet_view.SortKey = "name"
    descending: bool = False
    offset: int = Field(0, ge=0, le=1_000_000)
    limit: int = Field(50, ge=1, le=500)


@router.get("/workers")
def list_workers(query: Annotated[WorkerQuery, Query()], user: Reader) -> WorkersPage:
    """The workers that match all that is given."""
    selection = Selection(
        names=query.name, queues=query.queue, states=query.state, team=query.team, search=query.search
    )
    with new_session() as session:
        return fleet_view.page(
            session,
            selection,
            datetime.now(UTC),
            sort=query.sort,
            descending=query.descending,
            offset=query.offset,
            limit=query.limit,
            sees=user.sees,
        )


class DetailQuery(BaseModel):
    """What is shown of a worker."""

    model_config = ConfigDict(extra="forbid")

    actions: bool = Field(False, description="Of its history the last 100 things that people did to it")


@router.get("/workers/{worker_name}")
def show_worker(worker_name: WorkerName, query: Annotated[DetailQuery, Query()], user: Reader) -> WorkerDetail:
    """One worker: its facts, history, jobs, and, for who may act on it, the last lines of its daemon's log."""
    with new_session() as session:
        if not user.sees(workers.get(session, worker_name).team):
            raise workers.unknown(worker_name)
        return fleet_view.detail(
            session,
            worker_name,
            datetime.now(UTC),
            dags=user.dags,
            teams=user.teams,
            logs=user.acts,
            actions=query.actions,
        )


class QueueQuery(BaseModel):
    """Which queues, and which page of them."""

    model_config = ConfigDict(extra="forbid")

    search: Part = Field("", description="Part of the name")
    offset: int = Field(0, ge=0, le=1_000_000)
    limit: int = Field(50, ge=1, le=500)


@router.get("/queues")
def list_queues(query: Annotated[QueueQuery, Query()], user: Reader) -> QueuesPage:
    """The queues that have jobs, or that a worker names."""
    with new_session() as session:
        return queue_view.page(
            session,
            datetime.now(UTC),
            search=query.search,
            offset=query.offset,
            limit=query.limit,
            sees=user.sees,
        )


class ActionRequest(BaseModel):
    """What is done to whom."""

    model_config = ConfigDict(extra="forbid")

    selection: Selection
    action: Action
    dry_run: bool = Field(False, description="Say what would become of it, and change nothing")


@router.post("/actions")
def act(asked: ActionRequest, user: Actor) -> list[Outcome]:
    """Do something to each of the selected workers, and say what became of it, worker by worker."""
    if not asked.selection.given:
        raise BadInput("No worker is selected: give names, queues or states. All of them: the name `*`.")
    if not user.somewhere(user.acts):
        raise NotPermitted("Your role may look at workers, not change them: that needs the right to edit pools.")
    did = carry_out(
        asked.selection, asked.action, by=user.name, dry_run=asked.dry_run, sees=user.sees, permits=user.acts
    )
    return list(did)
