"""Has a task outlast a disk on which its log finds no room; run by the task interpreter.

Left alone, the first line that cannot be written ends Airflow's supervisor, and with it the task.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
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


def lenient(write: Callable[[Any, Any], None], lost: dict[Any, int]) -> Callable[[Any, Any], None]:
    """Return a logger's method that counts in ``lost`` what it cannot write, by file, and says so when it can."""

    def msg(self: Any, message: Any) -> None:
        file = self._file
        try:
            if file in lost and isinstance(message, bytes):
                self._write(note(lost[file]))
                self._flush()
                del lost[file]
            write(self, message)
        except OSError:
            lost[file] = lost.get(file, 0) + 1

    return msg


def install() -> None:
    """Have the loggers of this process go on when they cannot write."""
    import structlog
    from airflow.sdk.execution_time import supervisor

    lost: dict[Any, int] = {}
    for kind in (structlog.BytesLogger, structlog.WriteLogger, structlog.PrintLogger):
        plain = kind.msg
        for name in METHODS:
            if getattr(kind, name, None) is plain:
                setattr(kind, name, lenient(plain, lost))
    configure = supervisor._configure_logging

    def configured(*args: Any, **kwargs: Any) -> Any:
        logger, file = configure(*args, **kwargs)

        def close() -> None:
            # What is still in its buffer has no room either.
            with contextlib.suppress(OSError):
                file.close()

        return logger, SimpleNamespace(close=close)

    supervisor._configure_logging = configured


def flush() -> None:
    """Flush what this process has printed, as far as there is room."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
