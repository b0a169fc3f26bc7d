"""``airflow edge workers maintenance``, ``shutdown``, ``queues``, ``concurrency`` and ``remove``: what is asked of
workers, and the account of what became of it."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator

from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress

from edge_otel.actions import (
    Action,
    AddQueues,
    MaintenanceComment,
    MaintenanceOff,
    MaintenanceOn,
    Outcome,
    Remove,
    RemoveQueues,
    SetConcurrency,
    Shutdown,
)
from edge_otel.cli.command import comma_separated, edge_command, fail, user
from edge_otel.cli.output import inert, print_rows, tell
from edge_otel.cli.selecting import checked, selected
from edge_otel.cli.waiting import await_obedience
from edge_otel.models import fleet_view
from edge_otel.models.session import new_session
from edge_otel.operate import carry_out
from edge_otel.selection import Selection
from edge_otel.wire import MAX_SLOTS

SHOWN = 10
"""Names in a question."""


@edge_command
def maintenance_on(args: Namespace) -> None:
    """Begin maintenance."""
    if args.comment and len(args.comment) > 1024:
        fail("--comment: at most 1024 characters")
    _change(args, checked(MaintenanceOn, comment=args.comment))


@edge_command
def maintenance_off(args: Namespace) -> None:
    """End maintenance."""
    _change(args, MaintenanceOff())


@edge_command
def maintenance_comment(args: Namespace) -> None:
    """Change the comment on a maintenance."""
    _change(args, checked(MaintenanceComment, comment=args.comment))


@edge_command
def shutdown(args: Namespace) -> None:
    """Let workers stop."""
    _change(args, Shutdown())


@edge_command
def shutdown_all(args: Namespace) -> None:
    """Let all connected workers stop. As with edge3, one is asked about as well, and none is no error."""
    if not _names(selected(args)):
        _printed([], args.output)
        print("No worker is connected.", file=sys.stderr)  # noqa: T201
        return
    _change(args, Shutdown(), asked_from=1)


@edge_command
def queues_add(args: Namespace) -> None:
    """Let workers serve more queues."""
    _change(args, checked(AddQueues, queues=comma_separated(args.queues, "--queues")))


@edge_command
def queues_remove(args: Namespace) -> None:
    """Let workers serve fewer queues."""
    _change(args, checked(RemoveQueues, queues=comma_separated(args.queues, "--queues")))


@edge_command
def concurrency(args: Namespace) -> None:
    """Set the slots of workers."""
    try:
        action = SetConcurrency(slots=args.slots)
    except ValidationError:
        fail(
            f"{args.slots}: the number of slots is from 1 to {MAX_SLOTS}; to stop a worker from taking jobs, use"
            " maintenance"
        )
    _change(args, action)


@edge_command
def remove(args: Namespace) -> None:
    """Forget workers."""
    _change(args, Remove())


def _change(args: Namespace, action: Action, asked_from: int = 2) -> None:
    selection = selected(args)
    if not selection.given:
        fail("Which workers? Give names or globs ('*' for all of them), --queue, --state or --team.")
    timeout = getattr(args, "timeout", None)
    if timeout is not None and not args.wait:
        fail(f"--timeout {timeout:g}: only together with --wait")
    waits = getattr(args, "wait", False) and not args.dry_run
    if timeout is not None and not timeout >= 0:
        fail(f"--timeout {timeout:g}: at least 0 seconds")
    names = _names(selection)
    if not names and not selection.exact_names:
        _printed([], args.output)
        fail("No worker matches, so nothing was done.")
    if len(names) >= asked_from and not (args.yes or args.dry_run):
        _confirm(action, names)
    if args.dry_run:
        print("Dry run: nothing is changed.", file=sys.stderr)  # noqa: T201
    found = carry_out(selection.only(names), action, by=user(), dry_run=args.dry_run)
    outcomes = _printed(_counted(found, len(names), args.output), args.output)
    refused = [outcome for outcome in outcomes if not outcome.done]
    if len(outcomes) > 1:
        for outcome in refused:
            print(inert(f"{outcome.worker}: {outcome.text}"), file=sys.stderr)  # noqa: T201
    if waits:
        done = [outcome.worker for outcome in outcomes if outcome.done]
        await_obedience(action, done, timeout, args.output)
    if refused:
        _blame(refused, len(outcomes))


def _names(selection: Selection) -> list[str]:
    with new_session() as session:
        return [found.name for found in fleet_view.select_workers(session, selection)]


def _confirm(action: Action, names: list[str]) -> None:
    """Return if these workers are what the user wants."""
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    what = action.kind.replace("_", " ")
    number = "1 worker" if len(names) == 1 else f"{len(names)} workers"
    # There is none where it was closed.
    if sys.stdin is None or not sys.stdin.isatty():
        fail(f"{what}: {number} meant ({shown}). Give --yes to do it, or --dry-run to look first.")
    print(f"{what}: {number} ({shown}). Go on? [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        fail("Nothing was done.")


def _counted(outcomes: Iterable[Outcome], total: int, output: str) -> Iterator[Outcome]:
    """Show on a terminal how far it is, where nothing else does."""
    quiet = not sys.stderr.isatty() or (output == "text" and sys.stdout.isatty())
    # Not redirected: else what is told would go where the bar is.
    bar = Progress(console=Console(stderr=True), transient=True, disable=quiet, redirect_stdout=False)
    with bar:
        yield from bar.track(outcomes, total=total, description="Workers")


def _printed(outcomes: Iterable[Outcome], output: str) -> list[Outcome]:
    """Print what became of each worker, as text at once; an end in the middle leaves an account."""
    if output == "text":
        return list(_lines(outcomes))
    told: list[Outcome] = []
    try:
        for outcome in outcomes:
            told.append(outcome)
    finally:
        # Also those until an end in the middle.
        print_rows(
            told,
            lambda one: {"worker": one.worker, "done": "yes" if one.done else "no", "how it stands": one.text},
            output,
        )
    return told


def _lines(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    for outcome in outcomes:
        if outcome.done:
            tell(f"{outcome.worker}: {outcome.text}")
        yield outcome


def _blame(refused: list[Outcome], total: int) -> None:
    """End the command with what was refused."""
    if total > 1:
        fail(f"{len(refused)} of {total} workers refused.")
    fail(f"{refused[0].worker}: {refused[0].text}")
