"""The user's own function that tells facts about this worker. Whatever it does, heartbeats and jobs go on."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edge_otel.wire import MAX_FACTS, OWN_FACTS, FactInteger, FactName, FactNumber, FactText
from edge_worker.faults import BadSetting
from edge_worker.health import read_status
from edge_worker.patience import until_due

log = logging.getLogger(__name__)

Fact = str | int | float

WITHIN = 10.0
"""Seconds for one call."""

KEPT = 3
"""Intervals for which the last good facts are kept when none follow."""

MOST = MAX_FACTS - len(OWN_FACTS)
"""Facts of the user in one report."""

LARGEST = 8 * 1024
"""Characters of all their names and texts: they are in every heartbeat."""

_WIRE: TypeAdapter[tuple[str, Fact]] = TypeAdapter(tuple[FactName, FactText | FactInteger | FactNumber])


def load(path: str) -> Callable[[], Any]:
    """Return the function at ``module:function`` or ``module.function``. Raises BadSetting."""
    module, found, name = path.rpartition(":" if ":" in path else ".")
    if not found or not module or not name:
        raise BadSetting(f"--facts-function: {path!r} is not module:function")
    try:
        function = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 what the user's module raises
        raise BadSetting(f"--facts-function: cannot import {path}: {type(error).__name__}: {error}") from None
    if not callable(function):
        raise BadSetting(f"--facts-function: {path} is not a function")
    return function  # type: ignore[no-any-return]


def usable(told: object) -> tuple[dict[str, Fact], list[str]]:
    """Return the facts that can be reported, and in words what was wrong with the others."""
    if not isinstance(told, Mapping):
        return {}, [f"it returned {type(told).__name__} instead of a dict"]
    facts: dict[str, Fact] = {}
    wrong: list[str] = []
    size = 0
    for name, value in told.items():
        if len(facts) == MOST or len(wrong) == MOST:
            wrong.append(f"of its {len(told)} facts {len(facts)} are taken, {MOST} is the limit")
            break
        if isinstance(name, str) and name in OWN_FACTS and name != "status":
            wrong.append(f"{name!r} is a fact of the daemon's own")
            continue
        try:
            plain = value.isoformat() if isinstance(value, datetime) else value
            taken_name, taken = _WIRE.validate_python((name, plain))
        except (ValidationError, ValueError):
            wrong.append(f"{repr(name)[:80]} ({type(value).__name__}) is no text, number or time, or too large")
            continue
        size += len(taken_name) + len(str(taken))
        if size > LARGEST:
            wrong.append(f"of its {len(told)} facts {len(facts)} are taken, {LARGEST} characters are the limit")
            break
        facts[taken_name] = taken
    if "status" in facts and read_status(facts["status"]) is None:
        wrong.append(f"its status {facts['status']!r} is no level: give 20 or info, 30 or warning, 40 or error")
    return facts, wrong


class UserFacts:
    """Calls the function again and again, in a thread, never twice at once, and keeps what it told last."""

    def __init__(self, path: str) -> None:
        """Import the function. Raises BadSetting."""
        self.path = path
        self._function = load(path)
        self._facts: dict[str, Fact] | None = None
        self._good_until = 0.0
        self._trouble = ""

    def latest(self, now: float) -> dict[str, Fact] | None:
        """Return the latest facts; None before the first and once they are too old. ``now``: the monotonic clock."""
        return self._facts if now <= self._good_until else None

    async def run(self, interval: Callable[[], float], changed: Callable[[], None]) -> None:
        """Call the function until cancelled, every ``interval()`` seconds. ``changed`` is called when what it says of
        the health has changed."""
        while True:
            begun, called = time.monotonic(), self._start()
            late: list[str] = []
            try:
                async with asyncio.timeout(WITHIN):
                    await asyncio.shield(called)
            except TimeoutError:
                late = [_too_slow()]
                self._complain(late)
            facts, wrong = await called
            self._complain(late or wrong)
            if facts or not wrong:
                news = self._facts is None or facts.get("status") != self._facts.get("status")
                self._facts, self._good_until = facts, time.monotonic() + KEPT * interval() + WITHIN
                if news:
                    changed()
            await until_due(begun, interval)

    def _start(self) -> asyncio.Future[tuple[dict[str, Fact], list[str]]]:
        """Call the function in a thread of its own, which nobody waits for at the end: it may hang for ever."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[tuple[dict[str, Fact], list[str]]] = loop.create_future()

        def finish(outcome: tuple[dict[str, Fact], list[str]]) -> None:
            if not done.done():
                done.set_result(outcome)

        def call() -> None:
            outcome = _call(self._function)
            # The loop may be closed: the daemon has left meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(finish, outcome)

        threading.Thread(target=call, name="facts", daemon=True).start()
        return done

    def _complain(self, wrong: list[str]) -> None:
        """Say what is wrong when that changes, not each time."""
        trouble = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        if trouble and trouble != self._trouble:
            log.warning("facts function %s: %s", self.path, trouble[:1000])
        elif self._trouble and not trouble:
            log.info("facts function %s: all is well again", self.path)
        self._trouble = trouble


def _call(function: Callable[[], Any]) -> tuple[dict[str, Fact], list[str]]:
    """Return what is usable of what the function returns or awaits."""

    limit: asyncio.Timeout | None = None

    async def awaited(promise: Any) -> object:
        nonlocal limit
        async with asyncio.timeout(WITHIN) as limit:
            return await promise

    try:
        told = function()
        return usable(asyncio.run(awaited(told)) if inspect.isawaitable(told) else told)
    except BaseException as error:  # noqa: BLE001 also SystemExit: it is the user's code
        if limit is not None and limit.expired():
            return {}, [_too_slow()]
        return {}, [f"it failed: {type(error).__name__}: {_text_of(error)}"]


def _too_slow() -> str:
    return f"it has not returned within {WITHIN:g} s"


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 the user's exception
        return "?"
