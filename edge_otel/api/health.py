"""Health for people, probes and edge3 workers. No credential is asked for."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from edge_otel.api.hub import Hub
from edge_otel.errors import EdgeError
from edge_otel.models.database import DatabaseFailure, check_migrated, explain
from edge_otel.models.session import new_session
from edge_otel.wire import Health

router = APIRouter(tags=["Health"])


@router.get("/v1/health")
async def health() -> Health:
    """Tell that the API answers."""
    return Health(status="healthy")


@router.get("/livez")
async def livez() -> Health:
    """Tell that the process answers."""
    return Health(status="ok")


@router.get("/readyz", responses={503: {"model": Health}})
def readyz(request: Request, response: Response) -> Health:
    """Tell whether the database is reachable and migrated, and workers can connect."""
    try:
        with new_session() as session:
            check_migrated(session)
    except (EdgeError, DatabaseFailure) as error:
        response.status_code = 503
        cause = error if isinstance(error, EdgeError) else explain(error)
        return Health(status="not ready", detail=cause.detail)
    hub: Hub | None = getattr(request.app.state, "hub", None)
    if hub is None or not hub.running:
        response.status_code = 503
        return Health(status="not ready", detail="The server is starting or stopping: no worker can connect.")
    return Health(status="ok")
