"""Every credential that must be refused, and those that must not."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.api_fastapi.auth.tokens import JWTGenerator
from served import new_token
from sqlalchemy import select, update

from edge_otel.models import tokens
from edge_otel.models.session import new_session
from edge_otel.models.tables import Base, Token

DAY = timedelta(days=1)


def shared_secret(called: str, *, secret: str | None = None, valid_for: float = 30, audience: str = "api") -> str:
    """Return the ``Authorization`` header that an edge3 worker sends for this path below ``/v1/``."""
    key = secret or os.environ["AIRFLOW__API_AUTH__JWT_SECRET"]
    generator = JWTGenerator(secret_key=key, valid_for=valid_for, audience=audience)
    return generator.generate({"method": called})


def below_v1(path: str) -> str:
    """Return what an edge3 worker signs for a path."""
    return path.partition("/v1/")[2] or path.strip("/")


def refused_anywhere(path: str) -> dict[str, str | None]:
    """Return ``Authorization`` headers that open nothing of worker ``w``'s, by what is wrong with them."""
    now = datetime.now(UTC)
    expired = new_token("w", now=now - 2 * DAY, lifetime=DAY)
    revoked = new_token("w")
    with new_session() as session:
        tokens.revoke(session, revoked[4:20], now)
    own = new_token("w")
    return {
        "no token": None,
        "an empty one": "",
        "a scheme alone": "Bearer",
        "malformed": f"Bearer {own[:-1]}",
        "another scheme": f"Basic {own}",
        "no scheme": own,
        "unknown": f"Bearer ewt_{'0' * 16}.{own[21:]}",
        "another token's secret": f"Bearer {own[:21]}{revoked[21:]}",
        "odd bytes": "Bearer ewt_" + "\u00e9" * 16 + own[20:],
        "expired": f"Bearer {expired}",
        "revoked": f"Bearer {revoked}",
        "another worker's": f"Bearer {new_token('v')}",
        "another group's": f"Bearer {new_token('w-*')}",
        "the shared secret's": shared_secret(below_v1(path)),
        "the shared secret's, as bearer": f"Bearer {shared_secret(below_v1(path))}",
    }


def refused_though_shared_secrets_are_accepted(path: str) -> dict[str, str | None]:
    """Return headers that are wrong even then."""
    called = below_v1(path)
    return {
        "for another path": shared_secret("worker/elsewhere"),
        "for a path that begins alike": shared_secret(called + "x"),
        "for no path": shared_secret(""),
        "by another secret": shared_secret(called, secret="x" * 64),
        "too old": shared_secret(called, valid_for=-60),
        "for another audience": shared_secret(called, audience="urn:airflow.apache.org:task"),
        "no token": None,
        "odd bytes": "\u00e9\u00ff",
        "not signed": "eyJhbGciOiJub25lIn0.eyJtZXRob2QiOiJ4In0.",
        "another worker's": f"Bearer {new_token('v')}",
    }


def dump() -> dict[str, list[Any]]:
    """Return every row of every table."""
    with new_session() as session:
        tables = Base.metadata.sorted_tables
        return {table.name: sorted(map(repr, session.execute(select(table)).all())) for table in tables}


def settle_last_use() -> None:
    """Let all tokens count as used just now, so that a call changes no row merely by being made."""
    with new_session() as session:
        session.execute(update(Token).values(last_used_at=datetime.now(UTC)))
