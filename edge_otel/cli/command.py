"""What the commands share: errors as one line, and who is asking."""

from __future__ import annotations

import getpass
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from functools import wraps
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from airflow.utils.cli import action_cli
from airflow.utils.providers_configuration_loader import providers_configuration_loaded

from edge_otel.cli.output import flush, inert, silence
from edge_otel.errors import EdgeError
from edge_otel.models.database import DatabaseFailure, explain
from edge_otel.models.session import new_session

Command = Callable[[Namespace], None]


def edge_command(work: Command) -> Command:
    """Make a function a command of Airflow: its errors are one line on standard error and exit code 1."""

    # Airflow's own wrapper is inside: it asks the database, too.
    logged: Command = action_cli(providers_configuration_loaded(work))

    @wraps(work)
    def command(args: Namespace) -> None:
        if sys.stderr is None:
            # It was closed: what is printed there would go to the output.
            sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
        if isinstance(sys.stdout, TextIOWrapper):
            # Whatever a site writes, and whatever this terminal knows.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            _check_text(args)
            _reach_database()
            logged(args)
            flush()
        except BrokenPipeError:
            silence()
        except EdgeError as error:
            fail(str(error))
        except DatabaseFailure as error:
            fail(str(explain(error)))
        except KeyboardInterrupt:
            raise SystemExit(130) from None

    return command


def _check_text(args: Namespace) -> None:
    for name, value in vars(args).items():
        for text in value if isinstance(value, list) else [value]:
            try:
                str(text).encode()
            except UnicodeEncodeError:
                fail(f"{name} {text!r}: this is not UTF-8")


def _reach_database() -> None:
    # Without one, Airflow's wrapper would say at length that it cannot record the call.
    with new_session() as session:
        session.connection()


def fail(text: str) -> NoReturn:
    """End the command with an error, in one line."""
    flush()
    raise SystemExit(f"Error: {inert(text)}")


def user() -> str:
    """Return the name that an administrator's action is recorded under."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def comma_separated(text: str | None, flag: str) -> list[str] | None:
    """Return the names in ``a,b``, or None where nothing was given."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names) or any(len(name) > 256 for name in names) or len(names) > 64:
        fail(f"{flag} {text!r}: give up to 64 names separated by commas, each of 1 to 256 characters")
    return list(dict.fromkeys(names))
