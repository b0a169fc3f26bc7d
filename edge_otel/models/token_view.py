"""Tokens as people look at them: filtered pages. Does not commit."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Literal

from sqlalchemy import case, false, func, or_, select
from sqlalchemy.orm import Session

from edge_otel.models import tokens
from edge_otel.models.fleet_view import OfTeam, anyone
from edge_otel.models.tables import Token
from edge_otel.views import TokensPage

TokenState = Literal["valid", "expired", "revoked"]


def page(
    session: Session,
    now: datetime,
    *,
    states: Collection[TokenState] = (),
    search: str = "",
    offset: int = 0,
    limit: int = 50,
    sees: OfTeam = anyone,
) -> TokensPage:
    """Return ``limit`` of the tokens from ``offset`` on, the last made first: those in one of these states (none given:
    in any) that have ``search`` in their id or in the worker's name."""
    teams = [team for team in session.scalars(select(Token.team).distinct()) if sees(team)]
    wanted = [or_(false(), *(Token.team.is_not_distinct_from(team) for team in teams))]
    if search:
        wanted.append(Token.id.icontains(search, autoescape=True) | Token.worker.icontains(search, autoescape=True))
    ended = case((Token.expires_at <= now, "expired"), else_="valid")
    state = case((Token.revoked_at.is_not(None), "revoked"), else_=ended).label("token_state")
    counted = session.execute(select(state, func.count()).where(*wanted).group_by(state))
    counts = {str(known): count for known, count in counted}
    query = select(Token).where(*wanted, *([state.in_(states)] if states else []))
    found = session.scalars(query.order_by(Token.created_at.desc(), Token.id).offset(offset).limit(limit))
    return TokensPage(
        tokens=[tokens.shown(token, now) for token in found],
        total=sum(count for known, count in counts.items() if not states or known in states),
        states=counts,
        at=now,
    )
