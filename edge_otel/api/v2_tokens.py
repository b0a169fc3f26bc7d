"""v2: a new token for a task that runs on, after its own has expired while the worker was cut off."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from edge_otel.api import task_tokens
from edge_otel.api.auth import Caller
from edge_otel.api.refusals import RESPONSES
from edge_otel.api.v2_logs import ClaimHeader, job_of
from edge_otel.errors import NoTask, StaleClaim
from edge_otel.models.session import new_session
from edge_otel.state import JobState
from edge_otel.wire import TaskToken

router = APIRouter(prefix="/v2/jobs", tags=["Jobs"], responses=RESPONSES)


@router.post("/{job_id}/token")
def renew(job_id: UUID, caller: Caller, claim: ClaimHeader) -> TaskToken:
    """Return a token for the Execution API, for a task that runs on the caller's worker under this claim."""
    with new_session() as session:
        job = job_of(session, str(job_id), claim, caller)
        if claim != job.claim or job.state != JobState.RUNNING:
            raise StaleClaim
        if job.kind != "task":
            raise NoTask
    return TaskToken(token=task_tokens.mint(str(job_id)))
