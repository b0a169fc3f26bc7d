"""Which workers the arguments of a command mean."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from edge_otel.cli.command import fail
from edge_otel.selection import Selection
from edge_otel.state import WorkerState

Model = TypeVar("Model", bound=BaseModel)


def selected(args: Namespace) -> Selection:
    """Return what ``worker``, ``--queue``, ``--state`` and ``--team`` mean; nothing given is everything."""
    states = [state.replace("_", " ") for state in parts(args.state)]
    for state in states:
        if state not in list(WorkerState):
            fail(f"--state {state!r}: there is {', '.join(WorkerState)}")
    return checked(Selection, names=args.worker, queues=parts(args.queue), states=states, team=args.team)


def parts(given: Iterable[str] | None) -> list[str]:
    """Return the words of an option that may be given again, and may hold several separated by commas."""
    return [word.strip() for text in given or () for word in text.split(",")]


def checked(model: type[Model], **values: Any) -> Model:
    """Return the model with these values, or end the command with what is wrong with them."""
    try:
        return model(**values)
    except ValidationError as error:
        refuse(error)


def refuse(error: ValidationError) -> NoReturn:
    """End the command with the first of the errors, in one line."""
    first = error.errors()[0]
    told = first["msg"].removeprefix("Value error, ")
    fail(f"{first['loc'][0]} {str(first['input'])[:80]!r}: {told[:1].lower()}{told[1:]}")
