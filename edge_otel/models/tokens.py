"""Worker tokens: ``ewt_<id>.<secret>``, of which only the secret's SHA-256 is kept. Nothing here commits."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.orm import Session

from edge_otel.errors import TokenEnded, TokenNotFound
from edge_otel.models.tables import Token, Worker
from edge_otel.models.wakeup import announce_worker
from edge_otel.views import TokenRow

_FORMAT = re.compile(r"^ewt_([0-9a-f]{16})\.([A-Za-z0-9_-]{43})\Z")
WORKER_PATTERN = r"^[A-Za-z0-9*?\[][A-Za-z0-9_.@:*?\[\]!-]{0,63}$"
"""Of the worker name or glob that a token is for."""
_MYSQL_END = datetime(2038, 1, 1, tzinfo=UTC)
"""Its timestamps go little further."""
_LAST_USE_RESOLUTION = timedelta(minutes=1)


def create(
    session: Session,
    *,
    worker: str,
    queues: list[str] | None,
    team: str | None,
    lifetime: timedelta,
    now: datetime,
    by: str | None,
) -> tuple[Token, str]:
    """Return a new token's row and its text, which can never be had again."""
    secret = secrets.token_urlsafe(32)
    ends = now + lifetime
    if session.get_bind().dialect.name == "mysql":
        ends = min(ends, _MYSQL_END)
    token = Token(
        id=secrets.token_hex(8),
        secret_sha256=hashlib.sha256(secret.encode()).hexdigest(),
        worker=worker,
        queues=queues,
        team=team,
        created_at=now,
        created_by=by and by[:256],
        expires_at=ends,
    )
    session.add(token)
    return token, f"ewt_{token.id}.{secret}"


def verify(session: Session, text: str, now: datetime) -> Token | str:
    """Return the token's row, or the reason for the server's log why the text is no valid token."""
    match = _FORMAT.match(text)
    if match is None:
        return "malformed token"
    token_id, secret = match.groups()
    token = session.get(Token, token_id)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    if not hmac.compare_digest(digest, token.secret_sha256 if token else "0" * 64) or token is None:
        return f"unknown token {token_id}"
    if token.revoked_at is not None:
        return f"token {token_id} was revoked at {token.revoked_at.isoformat()}"
    if token.expires_at <= now:
        return f"token {token_id} expired at {token.expires_at.isoformat()}"
    return token


def record_use(session: Session, token: Token, now: datetime) -> None:
    """Remember that the token was used, at most once a minute."""
    if token.last_used_at is None or now - token.last_used_at >= _LAST_USE_RESOLUTION:
        session.execute(
            update(Token)
            .where(Token.id == token.id)
            .values(last_used_at=now)
            .execution_options(synchronize_session=False)
        )


def unused_since(now: datetime) -> ColumnElement[bool]:
    """Return the condition under which a use at ``now`` is worth recording."""
    return or_(Token.last_used_at.is_(None), Token.last_used_at < now - _LAST_USE_RESOLUTION)


def matches(pattern: str, worker: str) -> bool:
    """Return whether a token for ``pattern`` (a name or a glob) is one for ``worker``."""
    return fnmatchcase(worker, pattern)


def every(session: Session) -> Sequence[Token]:
    """Return all tokens, oldest first."""
    return session.scalars(select(Token).order_by(Token.created_at, Token.id)).all()


def shown(token: Token, now: datetime) -> TokenRow:
    """Return a token as people see it."""
    ended = "revoked" if token.revoked_at is not None else "expired"
    state = "valid" if token.revoked_at is None and token.expires_at > now else ended
    known = {name: getattr(token, name) for name in TokenRow.model_fields if name != "state"}
    return TokenRow(state=state, **known)


def revoke(session: Session, token_id: str, now: datetime) -> Token:
    """Make a token worthless from now on."""
    token = get(session, token_id)
    token.revoked_at = token.revoked_at or now
    _announce_holders(session, token_id)
    return token


def rotate(session: Session, token_id: str, *, overlap: timedelta, now: datetime, by: str | None) -> tuple[Token, str]:
    """Return a token with the same scope and lifetime that takes over; the old one ends after ``overlap``."""
    old = get(session, token_id)
    if old.revoked_at is not None or old.expires_at <= now:
        raise TokenEnded
    new, text = create(
        session,
        worker=old.worker,
        queues=old.queues,
        team=old.team,
        lifetime=_lifetime(session, old),
        now=now,
        by=by,
    )
    old.rotated_to = new.id
    old.expires_at = min(old.expires_at, now + overlap)
    _announce_holders(session, token_id)
    return new, text


def _lifetime(session: Session, token: Token) -> timedelta:
    """Return how long a token was made for. Rotation cuts it short; the last of those that took over has it still."""
    while token.rotated_to is not None and (successor := session.get(Token, token.rotated_to)) is not None:
        token = successor
    return token.expires_at - token.created_at


def _announce_holders(session: Session, token_id: str) -> None:
    for worker in session.scalars(select(Worker.name).where(Worker.token_id == token_id)):
        announce_worker(session, worker)


def get(session: Session, token_id: str) -> Token:
    """Return the token, or raise TokenNotFound."""
    token = session.get(Token, token_id)
    if token is None:
        raise unknown(token_id)
    return token


def unknown(token_id: str) -> TokenNotFound:
    """Return the error that says that there is no such token."""
    return TokenNotFound(f"No token has the id {token_id!r}. `airflow edge token list` shows those that exist.")
