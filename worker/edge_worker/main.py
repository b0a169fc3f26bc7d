"""The command ``edge-worker``; ``commandline`` has its exit codes."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from edge_worker.commandline import parser
from edge_worker.faults import BadSetting

DEFECT, BAD_CONFIGURATION = 1, 2


def main(arguments: list[str] | None = None) -> None:
    """Run the command; exits."""
    _hold_standard_streams()
    try:
        given: dict[str, Any] = vars(parser().parse_args(arguments))
        command = given.pop("command")
        code = _start(given) if command == "start" else _ask(command, given)
    except SystemExit as told:
        # Help, or what is wrong with the arguments, was printed.
        code = int(told.code or 0)
    except BadSetting as problem:
        print(f"edge-worker: {problem}", file=sys.stderr)  # noqa: T201
        code = BAD_CONFIGURATION
    except Exception:  # noqa: BLE001 - whatever it is, a thread that hangs must not keep the process from ending
        traceback.print_exc()
        code = DEFECT
    for stream in (sys.stdout, sys.stderr):
        # Whoever read them may have gone; the code is heard all the same.
        with suppress(OSError):
            stream.flush()
    # A call that hangs in a dead network, or an exporter, must not hold the exit: all that matters is done.
    os._exit(code)


def _hold_standard_streams() -> None:
    """Put nothing in the place of standard streams that were closed: else the next files would be taken for them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.dup2(descriptor, number)
            if descriptor != number:
                os.close(descriptor)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def _start(flags: dict[str, Any]) -> int:
    if sys.platform != "win32":
        # They wait until the daemon heeds them; until then they would end it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGUSR1})
    from edge_worker import daemonlog, settings
    from edge_worker.logexport import LogExport
    from edge_worker.logtail import LogTail

    sources = partial(settings.load, flags, flags.pop("config", None))
    chosen = sources()
    # They keep what is said until it can be sent.
    export, tail = LogExport(), LogTail(chosen.log_lines)
    daemonlog.configure(chosen.log_level, chosen.log_format, export, tail)
    from edge_worker.facts import UserFacts
    from edge_worker.host import TaskInterpreter

    # They start while the rest is imported.
    interpreter = TaskInterpreter(chosen.task_python)
    users = UserFacts(chosen.facts_function) if chosen.facts_function else None
    from edge_worker.daemon import run

    try:
        return _run(run, chosen, sources, interpreter, users, export, tail)
    finally:
        if users is not None:
            users.close()


def _run(run: Callable[..., Coroutine[Any, Any, int]], *parts: Any) -> int:
    import asyncio

    return asyncio.run(run(*parts))


def _ask(command: str, given: dict[str, Any]) -> int:
    from edge_worker.local import perform

    try:
        return perform(command, given)
    except OSError as error:
        raise BadSetting(f"cannot print: {error.strerror}") from None
