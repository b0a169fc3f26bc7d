"""``ui/jobs``: the jobs of the fleet page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from edge_otel.api.refusals import UI_RESPONSES
from edge_otel.api.ui_access import Reader
from edge_otel.models import job_view
from edge_otel.models.job_view import JobFilter, Part
from edge_otel.models.session import new_session
from edge_otel.state import JobState
from edge_otel.views import JobsPage
from edge_otel.wire import Queue, Team

router = APIRouter(prefix="/ui", tags=["Fleet page"], responses=UI_RESPONSES)


class JobQuery(BaseModel):
    """Which jobs; texts are parts, upper or lower case, but for the whole names."""

    model_config = ConfigDict(extra="forbid")

    state: list[JobState] = []
    dag_id: Part = ""
    task_id: Part = ""
    run_id: Part = ""
    queue: Part = ""
    worker: Part = ""
    queue_is: Queue | None = Field(None, description="The queue's whole name")
    worker_is: Part = Field("", description="The worker's whole name")
    team: Team | None = None
    teamless: bool = Field(False, description="Jobs of no team")
    offset: int = Field(0, ge=0, le=1_000_000)
    limit: int = Field(50, ge=1, le=500)


@router.get("/jobs")
def list_jobs(query: Annotated[JobQuery, Query()], user: Reader) -> JobsPage:
    """The jobs of DAGs that the user may read, the last queued first, and callbacks and connection tests. Finished ones
    are here until they are purged."""
    wanted = JobFilter(states=query.state, **query.model_dump(exclude={"state", "offset", "limit"}))
    with new_session() as session:
        return job_view.page(
            session,
            wanted,
            datetime.now(UTC),
            dags=user.dags,
            teams=user.teams,
            offset=query.offset,
            limit=query.limit,
        )
