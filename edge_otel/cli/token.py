"""``airflow edge token``: create, list, revoke and rotate."""

from __future__ import annotations

import math
import re
from argparse import Namespace
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.cli.simple_table import AirflowConsole

from edge_otel.cli.command import comma_separated, edge_command, fail, user
from edge_otel.models import tokens
from edge_otel.models.session import new_session
from edge_otel.models.tables import Token

_PATTERN = re.compile(r"^[A-Za-z0-9*?\[][A-Za-z0-9_.@:*?\[\]!-]{0,63}\Z")


@edge_command
def create(args: Namespace) -> None:
    """Create a token and print it, this once."""
    if not _PATTERN.match(args.worker):
        fail(f"--worker {args.worker!r}: a worker name or glob has up to 64 letters, digits and _ . @ : - * ? [ ]")
    if args.team is not None and not 0 < len(args.team) <= 50:
        fail(f"--team {args.team!r}: the name of a team has 1 to 50 characters")
    lifetime = _positive(args.expires_days, "--expires-days")
    with new_session() as session:
        token, text = tokens.create(
            session,
            worker=args.worker,
            queues=comma_separated(args.queues, "--queues"),
            team=args.team,
            lifetime=timedelta(days=lifetime),
            now=datetime.now(UTC),
            by=user(),
        )
        _show_new(token, text, args.output)


@edge_command
def list_(args: Namespace) -> None:
    """Print all tokens, without their secrets."""
    now = datetime.now(UTC)
    with new_session() as session:
        AirflowConsole().print_as(data=[_row(t, now) for t in tokens.every(session)], output=args.output)


@edge_command
def revoke(args: Namespace) -> None:
    """Revoke a token."""
    now = datetime.now(UTC)
    with new_session() as session:
        AirflowConsole().print_as(data=[_row(tokens.revoke(session, args.token_id, now), now)], output=args.output)


@edge_command
def rotate(args: Namespace) -> None:
    """Create a token that takes over from another, and print it, this once."""
    overlap = timedelta(hours=_positive(args.overlap_hours, "--overlap-hours", zero=True))
    with new_session() as session:
        token, text = tokens.rotate(session, args.token_id, overlap=overlap, now=datetime.now(UTC), by=user())
        _show_new(token, text, args.output)


def _positive(number: float, flag: str, *, zero: bool = False) -> float:
    if not math.isfinite(number) or number > 36500 or number < 0 or (number == 0 and not zero):
        fail(f"{flag} {number:g}: must be a number above 0 and at most 36500")
    return number


def _show_new(token: Token, text: str, output: str) -> None:
    row = _row(token, token.created_at)
    if output == "table":
        # In a table a narrow terminal would fold the token.
        AirflowConsole().print_as(data=[row], output=output)
        print(f"\nThe token, shown only now:\n{text}")  # noqa: T201
    else:
        AirflowConsole().print_as(data=[{"id": row.pop("id"), "token": text, **row}], output=output)


def _state(token: Token, now: datetime) -> str:
    if token.revoked_at is not None:
        return "revoked"
    return "expired" if token.expires_at <= now else "valid"


def _row(token: Token, now: datetime) -> dict[str, Any]:
    return {
        "id": token.id,
        "worker": token.worker,
        "queues": ",".join(token.queues) if token.queues is not None else "",
        "team": token.team or "",
        "state": _state(token, now),
        "created_at": token.created_at.isoformat(timespec="seconds"),
        "created_by": token.created_by or "",
        "expires_at": token.expires_at.isoformat(timespec="seconds"),
        "last_used_at": token.last_used_at.isoformat(timespec="seconds") if token.last_used_at else "",
    }
