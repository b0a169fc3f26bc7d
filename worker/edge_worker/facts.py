"""The user's own function that tells facts about this worker. Whatever it does, heartbeats and jobs go on: it runs in a
process of its own, which sees neither the worker's token nor its settings."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edge_otel.wire import MAX_FACTS, OWN_FACTS, FactInteger, FactName, FactNumber, FactText
from edge_worker.environment import without_own
from edge_worker.facts_run import LONGEST
from edge_worker.faults import BadSetting
from edge_worker.health import read_status
from edge_worker.patience import until_due
from edge_worker.turn import Turn

log = logging.getLogger(__name__)

Fact = str | int | float

WITHIN = 10.0
"""Seconds for one call."""

READY_WITHIN = 30.0
"""Seconds to import the function."""

KEPT = 3
"""Intervals for which the last good facts are kept when none follow."""

MOST = MAX_FACTS - len(OWN_FACTS)
"""Facts of the user in one report."""

LARGEST = 8 * 1024
"""Characters of all their names and texts: they are in every heartbeat."""

PRINTED_MAX = 1000
"""Characters of one line that it prints, in the daemon's log."""

_WIRE: TypeAdapter[tuple[str, Fact]] = TypeAdapter(tuple[FactName, FactText | FactInteger | FactNumber])


def usable(told: Mapping[str, object]) -> tuple[dict[str, Fact], list[str]]:
    """Return the facts that can be reported, and in words what was wrong with the others."""
    facts: dict[str, Fact] = {}
    wrong: list[str] = []
    size = 0
    for name, value in told.items():
        if len(facts) == MOST or len(wrong) == MOST:
            wrong.append(f"of its {len(told)} facts {len(facts)} are taken, {MOST} is the limit")
            break
        if name in OWN_FACTS and name != "status":
            wrong.append(f"{name!r} is a fact of the daemon's own")
            continue
        try:
            taken_name, taken = _WIRE.validate_python((name, value))
        except (ValidationError, ValueError):
            kind = value.get("type") if isinstance(value, dict) else type(value).__name__
            wrong.append(f"{repr(name)[:80]} ({kind}) is no text, number or time, or too large")
            continue
        size += len(taken_name) + len(str(taken))
        if size > LARGEST:
            wrong.append(f"of its {len(told)} facts {len(facts)} are taken, {LARGEST} characters are the limit")
            break
        facts[taken_name] = taken
    if "status" in facts and read_status(facts["status"]) is None:
        wrong.append(f"its status {facts['status']!r} is no level: give 20 or info, 30 or warning, 40 or error")
    return facts, wrong


class Unanswered(Exception):
    """The function's process did not answer, and was ended; the text says why."""


class Child:
    """The process of ``facts_run.py``. Its methods but ``kill`` block, for a bounded time."""

    def __init__(self, path: str) -> None:
        """Start it. Raises OSError."""
        talks = log.isEnabledFor(logging.DEBUG)
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("facts_run.py")), path],
            env=without_own(os.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if talks else subprocess.DEVNULL,
            start_new_session=True,
        )
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        for reader in (self._read, self._listen)[: 1 + talks]:
            threading.Thread(target=reader, name=f"facts-{self._process.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def hear(self, within: float) -> dict[str, Any]:
        """Return its next answer. Raises Unanswered."""
        try:
            line = self._lines.get(timeout=within)
            answer = json.loads(line) if line else None
            if isinstance(answer, dict):
                return answer
            why = "its process wrote what is no answer" if line else "its process has ended"
        except queue.Empty:
            why = f"it has not returned within {within:g} s"
        except (ValueError, RecursionError):
            why = "its process wrote what is no answer"
        self.kill()
        raise Unanswered(f"{why}, exit code {self._process.poll()}" if why.endswith("ended") else why)

    def ask(self, within: float) -> dict[str, Any]:
        """Have the function called, and return the answer. Raises Unanswered."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # then its end is heard of
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        return self.hear(within)

    def kill(self) -> None:
        """End it and what it has started, now."""
        with contextlib.suppress(OSError):
            if self._process.poll() is None:
                if sys.platform == "win32":
                    self._process.kill()
                else:
                    os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._process.wait(1)
            self._process.stdin.close()  # type: ignore[union-attr]

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as answers:
            while line := answers.readline(LONGEST):
                self._lines.put(line)
        self._lines.put(b"")

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as printed:
            while line := printed.readline(PRINTED_MAX):
                log.debug("facts function: %s", line.decode(errors="replace").rstrip())


class UserFacts:
    """Calls the function again and again, and keeps what it told last."""

    def __init__(self, path: str) -> None:
        """Begin to import the function. Raises BadSetting."""
        if not all(path.rpartition(":" if ":" in path else ".")):
            raise BadSetting(f"--facts-function: {path!r} is not module:function")
        self.path = path
        self._child: Child | None = Child(path)
        self._thread = ThreadPoolExecutor(1, "facts")
        self._facts: dict[str, Fact] | None = None
        self._good_until = 0.0
        self._trouble = ""
        self.turn = Turn()

    def ready(self) -> None:
        """Wait until the function is there. Blocking; raises BadSetting."""
        assert self._child is not None
        try:
            answer = self._child.hear(READY_WITHIN)
        except Unanswered as error:
            raise BadSetting(f"--facts-function: cannot import {self.path}: {error}") from None
        if "ready" not in answer:
            self._child.kill()
            raise BadSetting(f"--facts-function: cannot import {self.path}: {answer.get('bad')}")

    def latest(self, now: float) -> dict[str, Fact] | None:
        """Return the latest facts; None before the first and once they are too old. ``now``: the monotonic clock."""
        return self._facts if now <= self._good_until else None

    async def run(self, interval: Callable[[], float], changed: Callable[[], None]) -> None:
        """Call the function until cancelled, every ``interval()`` seconds. ``changed`` is called when what it says of
        the health has changed."""
        loop = asyncio.get_running_loop()
        while True:
            begun = time.monotonic()
            self.turn("calling the function")
            facts, wrong = await loop.run_in_executor(self._thread, self._call)
            self._complain(wrong)
            if facts or not wrong:
                news = self._facts is None or facts.get("status") != self._facts.get("status")
                self._facts, self._good_until = facts, time.monotonic() + KEPT * interval() + WITHIN
                if news:
                    changed()
            self.turn("waiting for the next interval")
            await until_due(begun, interval)

    def pids(self) -> list[int]:
        """Return the function's process, if there is one."""
        child = self._child
        return [child.pid] if child is not None else []

    def close(self) -> None:
        """End the function's process."""
        if self._child is not None:
            self._child.kill()

    def _call(self) -> tuple[dict[str, Fact], list[str]]:
        try:
            if self._child is None:
                self._child = Child(self.path)
                self.ready()
            answer = self._child.ask(WITHIN)
        except (Unanswered, BadSetting, OSError) as error:
            self._child = None
            return {}, [str(error)]
        told = answer.get("told")
        return usable(told) if isinstance(told, dict) else ({}, [str(answer.get("wrong"))])

    def _complain(self, wrong: list[str]) -> None:
        """Say what is wrong when that changes, not each time."""
        trouble = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        if trouble and trouble != self._trouble:
            log.warning("facts function %s: %s", self.path, trouble[:1000])
        elif self._trouble and not trouble:
            log.info("facts function %s: all is well again", self.path)
        self._trouble = trouble
