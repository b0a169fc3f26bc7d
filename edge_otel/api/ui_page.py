"""``ui/``: what the fleet page is made of, and what it must know of its user. Airflow loads ``page.js`` into its own
UI; nothing of it needs a build."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from edge_otel import __version__
from edge_otel.api import ui_jobs, ui_tokens, ui_workers
from edge_otel.api.refusals import UI_RESPONSES
from edge_otel.api.ui_access import ACTION_HEADER, AIRFLOW_VERSION, Reader
from edge_otel.page_files import FOLDER, edition
from edge_otel.settings import Settings
from edge_otel.wire import edge_api

router = APIRouter(prefix="/ui", tags=["Fleet page"], responses=UI_RESPONSES)


class Context(BaseModel):
    """Who looks, what they may do, and how the page is set up."""

    user: str
    teams: list[str]
    """That the user belongs to; none where Airflow has no teams."""
    acts: bool
    """On some workers, at least."""
    sees_tokens: bool
    """Of some workers, at least."""
    makes_tokens: bool
    action_header: str = ACTION_HEADER
    """Sent, with any value, by each request that changes something."""
    trace_url: str
    """With ``{trace_id}``; empty: there are no links to traces."""
    api_url: str
    """Of the Edge API as workers reach it, as far as it is configured."""
    version: str = __version__
    airflow_version: str = AIRFLOW_VERSION
    at: datetime
    """The server's time."""


@router.get("/context")
def context(user: Reader, request: Request) -> Context:
    """What the page must know of its user."""
    settings: Settings = request.app.state.settings
    return Context(
        user=user.name,
        teams=user.teams,
        acts=user.somewhere(user.acts),
        sees_tokens=user.somewhere(partial(user.tokens, "GET")),
        makes_tokens=user.somewhere(partial(user.tokens, "POST")),
        trace_url=settings.trace_url,
        api_url=edge_api(settings.api_url),
        at=datetime.now(UTC),
    )


class PageFiles(StaticFiles):
    """Files that a browser keeps where their address has their edition. With another edition, of a replica that is
    newer or older, it gets those that are here, and asks again the next time."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        asked, _, name = path.partition("/")
        response = await super().get_response(name, scope)
        kept = "public, max-age=31536000, immutable" if asked == edition() else "no-cache"
        response.headers["Cache-Control"] = kept
        return response


def install(app: FastAPI) -> None:
    """Add the fleet page's routes and files."""
    for routes in (router, ui_workers.router, ui_jobs.router, ui_tokens.router):
        app.include_router(routes)
    app.mount("/ui/static", PageFiles(directory=FOLDER), name="fleet page")
