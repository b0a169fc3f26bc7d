"""How the commands print: for people what they look for, for scripts all there is, with its types."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

from airflow.cli.simple_table import AirflowConsole
from airflow.utils import yaml
from pydantic import BaseModel
from tabulate import tabulate  # type: ignore[import-untyped]

Row = TypeVar("Row", bound=BaseModel)
Columns = Callable[[Row], dict[str, str]]


def print_rows(rows: Sequence[Row], columns: Columns[Row], output: str) -> None:
    """Print rows: as a table of these columns, or whole as ``json`` or ``yaml``. Nobody need read them."""
    try:
        if output in ("json", "yaml"):
            print_data([row.model_dump(mode="json") for row in rows], output)
        else:
            print_table([columns(row) for row in rows], output)
    except BrokenPipeError:
        silence()


def print_table(rows: list[dict[str, str]], output: str) -> None:
    """Print columns for people, with a head."""
    # What a worker or a user has written is shown as it is: no markup, no control characters.
    rows = [{name: inert(text) for name, text in row.items()} for row in rows]
    console = AirflowConsole(markup=False, highlight=False, emoji=False)
    if output == "plain" and rows:
        # Airflow's own would print a name such as 1.10 as the number that it looks like.
        print(tabulate(rows, headers="keys", tablefmt="plain", disable_numparse=True))  # noqa: T201
    else:
        # Not by itself: where nobody reads it any more it would end the command.
        with console.capture() as table:
            console.print_as_table(rows)
        print(table.get(), end="")  # noqa: T201


def print_data(data: Any, output: str) -> None:
    """Print values of JSON as ``json`` or ``yaml``."""
    if output == "json":
        print(json.dumps(data, indent=2))  # noqa: T201
    else:
        print(yaml.dump(data, sort_keys=False), end="")  # noqa: T201


def print_facts(facts: Mapping[str, str]) -> None:
    """Print names and values below each other."""
    width = max(map(len, facts), default=0)
    for name, text in facts.items():
        print(f"{inert(name):{width}}  {inert(text)}")  # noqa: T201


def inert(text: str) -> str:
    """Return a text in which nothing steers a terminal."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def tell(line: str) -> None:
    """Print a line at once, though nobody may read it: what else is to be done is done all the same."""
    with suppress(BrokenPipeError):
        print(inert(line))  # noqa: T201
    flush()


def flush() -> None:
    """Bring what was printed to its reader, where there still is one."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        silence()


def silence() -> None:
    """Print nowhere from now on: the pipe's reader has had enough, and Python's last flush would complain of it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def span(seconds: float) -> str:
    """Return a duration for people, by its largest unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def ago(then: datetime, now: datetime) -> str:
    """Return how long ago something was, for people."""
    return f"{span(max(0.0, (now - then).total_seconds()))} ago"


def said(value: Any) -> str:
    """Return a value for people; nothing where there is none."""
    return "" if value is None else str(value)
