"""``airflow edge token``: create, list, revoke and rotate."""

from __future__ import annotations

import math
import re
from argparse import Namespace
from datetime import UTC, datetime, timedelta

from airflow.configuration import conf

from edge_otel.cli.command import comma_separated, edge_command, fail, user
from edge_otel.cli.output import print_data, print_table
from edge_otel.models import tokens
from edge_otel.models.session import new_session
from edge_otel.models.tables import Token


@edge_command
def create(args: Namespace) -> None:
    """Create a token and print it, this once."""
    if not re.fullmatch(tokens.WORKER_PATTERN, args.worker):
        fail(f"--worker {args.worker!r}: a worker name or glob has up to 64 letters, digits and _ . @ : - * ? [ ]")
    if args.team is not None and not (0 < len(args.team) <= 50 and args.team.isprintable()):
        fail(f"--team {args.team!r}: the name of a team has 1 to 50 characters, and none that cannot be seen")
    if args.team is not None and not conf.getboolean("core", "multi_team"):
        fail(f"--team {args.team!r}: Airflow has no teams here ([core] multi_team is off); leave the team out")
    queues = comma_separated(args.queues, "--queues")
    if not all(queue.isprintable() for queue in queues or ()):
        fail(f"--queues {args.queues!r}: the name of a queue has no characters that cannot be seen")
    lifetime = _positive(args.expires_days, "--expires-days")
    with new_session() as session:
        token, text = tokens.create(
            session,
            worker=args.worker,
            queues=queues,
            team=args.team,
            lifetime=timedelta(days=lifetime),
            now=datetime.now(UTC),
            by=user(),
        )
    # Not before it is stored: whoever takes it to a site would find it refused there.
    _show_new(token, text, args.output)


@edge_command
def list_(args: Namespace) -> None:
    """Print all tokens, without their secrets."""
    now = datetime.now(UTC)
    with new_session() as session:
        _print([_row(t, now) for t in tokens.every(session)], args.output)


@edge_command
def revoke(args: Namespace) -> None:
    """Revoke a token."""
    now = datetime.now(UTC)
    with new_session() as session:
        token = tokens.revoke(session, args.token_id, now)
    _print([_row(token, now)], args.output)


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
        _print([row], output)
        print(f"\nThe token, shown only now:\n{text}")  # noqa: T201
    else:
        _print([{"id": row.pop("id"), "token": text, **row}], output)


def _print(rows: list[dict[str, str]], output: str) -> None:
    if output in ("json", "yaml"):
        print_data(rows, output)
    else:
        print_table(rows, output)


def _row(token: Token, now: datetime) -> dict[str, str]:
    row = tokens.shown(token, now).model_dump(mode="json", exclude={"rotated_to"})
    return {key: ",".join(value) if isinstance(value, list) else value or "" for key, value in row.items()}
