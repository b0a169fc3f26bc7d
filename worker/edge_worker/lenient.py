"""Has a task outlast a disk on which its log finds no room; run by the task interpreter.

Left alone, the first line that cannot be written ends Airflow's supervisor, and with it the task.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

METHODS = (
    "msg",
    "log",
    "debug",
    "info",
    "warn",
    "warning",
    "error",
    "critical",
    "exception",
    "fatal",
    "failure",
    "err",
)


def note(lost: int) -> bytes:
    """Return what a log says of lines that are missing, in Airflow's format."""
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    text = f"{lost} lines of this log are missing here: they could not be written."
    return json.dumps({"timestamp": now, "level": "warning", "event": text, "logger": "edge.worker"}).encode() + b"\n"


class Lines:
    """The lines of one log. One that finds no room, or too little, waits; those that come meanwhile are counted.

    Nothing is left to a file's own buffer, which does not tell what of it has been written.
    """

    def __init__(self, write: Callable[[bytes], int]) -> None:
        """``write`` writes what there is room for: it returns how much that was, or raises OSError."""
        self._write, self._rest, self._lost = write, b"", 0

    def add(self, line: bytes) -> None:
        """Write a line, after what has waited and a note of what is missing."""
        if self._written():
            self._rest = self._noted() + line
            self._written()
        else:
            self._lost += 1

    def end(self) -> None:
        """Write what is left to write, as far as there is room."""
        if self._written():
            self._rest = self._noted()
            self._written()

    def _written(self) -> bool:
        """Write what waits; return whether that was all."""
        with contextlib.suppress(OSError):
            while self._rest:
                self._rest = self._rest[self._write(self._rest) :]
        return not self._rest

    def _noted(self) -> bytes:
        lost, self._lost = self._lost, 0
        return note(lost) if lost else b""


def lenient(write: Callable[[Any, Any], None], logs: dict[Any, Lines]) -> Callable[[Any, Any], None]:
    """Return a logger's method that goes on where it cannot write; in ``logs``, by file, are those that tell of it."""

    def msg(self: Any, message: Any) -> None:
        lines = logs.get(self._file)
        if lines is not None:
            with self._lock:
                lines.add(message + b"\n")
            return
        with contextlib.suppress(OSError):
            write(self, message)

    return msg


def configuring(configure: Callable[..., Any], logs: dict[Any, Lines]) -> Callable[..., Any]:
    """Return what opens a task's log as ``configure`` does, and has it in ``logs`` until it is closed."""

    def configured(*args: Any, **kwargs: Any) -> Any:
        logger, file = configure(*args, **kwargs)
        if not isinstance(file, io.BufferedWriter):
            return logger, file
        lines = logs[file] = Lines(partial(os.write, file.fileno()))

        def close() -> None:
            lines.end()
            del logs[file]
            with contextlib.suppress(OSError):
                file.close()

        return logger, SimpleNamespace(close=close)

    return configured


def install() -> None:
    """Have the loggers of this process go on when they cannot write."""
    import structlog

    logs: dict[Any, Lines] = {}
    for kind in (structlog.BytesLogger, structlog.WriteLogger, structlog.PrintLogger):
        plain = kind.msg
        for name in METHODS:
            if getattr(kind, name, None) is plain:
                setattr(kind, name, lenient(plain, logs))
    for name in ("supervisor", "callback_supervisor"):
        module: Any = import_module(f"airflow.sdk.execution_time.{name}")
        module._configure_logging = configuring(module._configure_logging, logs)


def flush() -> None:
    """Flush what this process has printed, as far as there is room."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
