"""``ui/tokens``: worker tokens on the fleet page. Their text is in one answer only, to who made them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from edge_otel.actions import NewQueues
from edge_otel.api.refusals import UI_RESPONSES
from edge_otel.api.ui_access import Actor, Method, Reader, User, has_teams
from edge_otel.errors import BadInput, NotPermitted
from edge_otel.models import audit, token_view, tokens
from edge_otel.models.session import Session, new_session
from edge_otel.models.tables import Token
from edge_otel.models.token_view import TokenState
from edge_otel.selection import Search
from edge_otel.views import NewToken, TokenRow, TokensPage
from edge_otel.wire import Team, in_words

router = APIRouter(prefix="/ui/tokens", tags=["Fleet page"], responses=UI_RESPONSES)

WorkerPattern = Annotated[
    str,
    StringConstraints(pattern=tokens.WORKER_PATTERN),
    in_words("a worker name or glob has up to 64 letters, digits and _ . @ : - * ? [ ]"),
]
TokenId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]


class TokenQuery(BaseModel):
    """Which tokens, and which page of them."""

    model_config = ConfigDict(extra="forbid")

    state: list[TokenState] = []
    search: Search = Field("", description="Part of the worker's name or of the id")
    offset: int = Field(0, ge=0, le=1_000_000)
    limit: int = Field(50, ge=1, le=500)


class TokenRequest(BaseModel):
    """Whom a new token is for."""

    model_config = ConfigDict(extra="forbid")

    worker: WorkerPattern = Field(description="Worker name, or a glob for a group: `site7-*`")
    queues: NewQueues | None = Field(None, description="Queues it may serve; all if not given")
    team: Team | None = None
    expires_days: float = Field(365.0, gt=0, le=36500, allow_inf_nan=False)


class RotationRequest(BaseModel):
    """How long the old token stays valid beside the new one."""

    model_config = ConfigDict(extra="forbid")

    overlap_hours: float = Field(24.0, ge=0, le=36500, allow_inf_nan=False)


@router.get("")
def list_tokens(query: Annotated[TokenQuery, Query()], user: Reader) -> TokensPage:
    """The tokens of the user's teams, the last made first."""
    _require_sight(user)
    with new_session() as session:
        return token_view.page(
            session,
            datetime.now(UTC),
            states=query.state,
            search=query.search,
            offset=query.offset,
            limit=query.limit,
            sees=partial(user.tokens, "GET"),
        )


@router.post("", status_code=201)
def create_token(asked: TokenRequest, user: Actor, response: Response) -> NewToken:
    """Make a token. Its text is shown this once."""
    _require(user, "POST", asked.team)
    if asked.team is not None and not has_teams():
        raise BadInput("Airflow has no teams here ([core] multi_team is off): leave the team out.")
    now = datetime.now(UTC)
    with new_session() as session:
        token, text = tokens.create(
            session,
            worker=asked.worker,
            queues=asked.queues,
            team=asked.team,
            lifetime=timedelta(days=asked.expires_days),
            now=now,
            by=user.name,
        )
        audit.record(session, "edge_token_create", user.name, id=token.id, **asked.model_dump())
        return _new(token, text, now, response)


@router.post("/{token_id}/rotate", status_code=201)
def rotate_token(token_id: TokenId, asked: RotationRequest, user: Actor, response: Response) -> NewToken:
    """Make a token that takes over from another, which stays valid for a while."""
    now = datetime.now(UTC)
    with new_session() as session:
        team = _team(session, token_id, user)
        # One is made, and one is changed.
        _require(user, "POST", team)
        _require(user, "PUT", team)
        token, text = tokens.rotate(
            session, token_id, overlap=timedelta(hours=asked.overlap_hours), now=now, by=user.name
        )
        audit.record(session, "edge_token_rotate", user.name, old=token_id, new=token.id, **asked.model_dump())
        return _new(token, text, now, response)


@router.post("/{token_id}/revoke")
def revoke_token(token_id: TokenId, user: Actor) -> TokenRow:
    """Make a token worthless at once."""
    now = datetime.now(UTC)
    with new_session() as session:
        _require(user, "DELETE", _team(session, token_id, user))
        token = tokens.revoke(session, token_id, now)
        audit.record(session, "edge_token_revoke", user.name, id=token.id)
        return tokens.shown(token, now)


def _team(session: Session, token_id: str, user: User) -> str | None:
    _require_sight(user)
    team = tokens.get(session, token_id).team
    if not user.tokens("GET", team):
        raise tokens.unknown(token_id)
    return team


def _require_sight(user: User) -> None:
    if not user.somewhere(partial(user.tokens, "GET")):
        raise NotPermitted("Tokens are shown to those who may read connections; your role may not.")


def _require(user: User, method: Method, team: str | None) -> None:
    if not user.tokens(method, team):
        raise NotPermitted("Tokens are changed by those who may change connections; your role may not.")


def _new(token: Token, text: str, now: datetime, response: Response) -> NewToken:
    response.headers["Cache-Control"] = "no-store"
    return NewToken(token=text, row=tokens.shown(token, now))
