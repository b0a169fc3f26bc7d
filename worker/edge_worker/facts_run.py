"""Calls the user's facts function in a process of its own: ``python -P facts_run.py module:function``.

Standard library only, and little of that: it lives as long as the daemon. It first writes whether the function is
there, then for every line of stdin what the function tells, each as one line of JSON; when stdin closes, it goes.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

ALONE = 60.0
"""Seconds for the import or for one call. The daemon ends what takes too long far sooner: it is dead then."""

LONGEST = 256 * 1024
"""Bytes of one answer."""

ERROR_MAX = 1000
"""Characters of an error."""


def load(path: str) -> Callable[[], Any]:
    """Return the function at ``module:function`` or ``module.function``. Raises whatever its module does."""
    module, _, name = path.rpartition(":" if ":" in path else ".")
    found = getattr(importlib.import_module(module), name)
    if not callable(found):
        raise TypeError(f"{path} is not a function")
    return found  # type: ignore[no-any-return]


def call(function: Callable[[], Any]) -> dict[str, Any]:
    """Return what the function returns or awaits as an answer: ``told``, or what was ``wrong``."""
    told = function()
    if hasattr(told, "__await__"):
        import asyncio

        async def awaited() -> Any:
            return await told

        told = asyncio.run(awaited())
    if not isinstance(told, Mapping):
        return {"wrong": f"it returned {type(told).__name__} instead of a dict"}
    return {"told": dict(plain(name, value) for name, value in told.items())}


def plain(name: Any, value: Any) -> tuple[str, Any]:
    """Return a fact as JSON can carry it; of one that nobody could report, what it is."""
    if isinstance(value, datetime):
        value = value.isoformat()
    if isinstance(name, str) and isinstance(value, str | int | float):
        return name, value
    return name if isinstance(name, str) else repr(name), {"type": type(value).__name__}


def words(error: BaseException) -> str:
    """Return an error in words, also one that cannot be shown."""
    text = "?"
    with contextlib.suppress(Exception):
        text = str(error)
    return f"{type(error).__name__}: {text}"[:ERROR_MAX]


def line(answer: dict[str, Any]) -> bytes:
    """Return an answer as it is written."""
    written = json.dumps(answer).encode() + b"\n"
    return written if len(written) <= LONGEST else line({"wrong": f"it returned more than {LONGEST // 1024} KiB"})


def main(path: str) -> None:
    """Serve until stdin closes."""
    orders, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", 0)
    # What the function prints, or reads, is not for the daemon.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    # By a thread that needs no lock of the interpreter.
    faulthandler.dump_traceback_later(ALONE, exit=True)
    try:
        function = load(path)
    except BaseException as error:  # noqa: BLE001 also SystemExit: it is the user's code
        answers.write(line({"bad": words(error)}))
        return
    answers.write(line({"ready": True}))
    faulthandler.cancel_dump_traceback_later()
    while orders.readline():
        faulthandler.dump_traceback_later(ALONE, exit=True)
        try:
            answer = line(call(function))
        except BaseException as error:  # noqa: BLE001 as above
            answer = line({"wrong": f"it failed: {words(error)}"})
        answers.write(answer)
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main(sys.argv[1])
    sys.stdout.flush()
    # Threads of the function must not keep it.
    os._exit(0)
