"""The newest lines of the daemon's log, for its next report to the server: few, in memory, and nobody waits."""

from __future__ import annotations

import logging
import threading
from collections import deque
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from edge_otel.telemetry.redaction import without_secrets
from edge_otel.wire import MAX_LOG_TEXT, DaemonLog, LogLine
from edge_worker.daemonlog import encodable, message

MOST = 64 * 1024
"""Bytes of the lines in one report: together with thousands of jobs they must fit in a message."""

STRIKES = 2
"""Times that a report fails with some lines and the next is answered without, until those are left out."""


class LogTail(logging.Handler):
    """Keeps the newest lines from INFO on. A report has those that were in none which was answered; where more came
    than are kept, the oldest are missing, as their numbers tell."""

    def __init__(self, kept: int) -> None:
        super().__init__(logging.INFO)
        self._source = str(uuid4())
        self._lines: deque[LogLine] = deque(maxlen=kept)
        self._guard = threading.Lock()
        self._number = self._answered = 0
        self._suspect: int | None = None
        """Number of the last line in a report that has just failed: the next report has none."""
        self._strikes = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        try:
            fields = read(record)
            with self._guard:
                self._number += 1
                self._lines.append(LogLine(number=self._number, **fields))
        except Exception:  # noqa: BLE001 - as every handler of ``logging``
            self.handleError(record)

    def unanswered(self, anew: bool) -> DaemonLog | None:
        """Return the lines for the next report. ``anew``: it is a registration, and has all that are kept: a server
        that was killed may have answered for some and not stored them."""
        if anew:
            self._answered = 0
        if self._suspect is not None:
            return None
        with self._guard:
            lines = [line for line in self._lines if line.number > self._answered]
        size, first = 0, len(lines)
        while first and (size := size + len(lines[first - 1].model_dump_json().encode())) <= MOST:
            first -= 1
        return DaemonLog(source=self._source, lines=lines[first:]) if lines else None

    def failed(self, log: DaemonLog | None) -> None:
        """Heed that a report with these lines was not answered."""
        # Something on the way that looks into what passes may not like a line, and that must not silence the worker.
        self._suspect = log.lines[-1].number if log is not None else None

    def answered(self, log: DaemonLog | None) -> None:
        """Heed that a report with these lines was answered."""
        if log is not None:
            self._answered, self._strikes = log.lines[-1].number, 0
        elif self._suspect is not None:
            self._strikes += 1
            if self._strikes == STRIKES:
                self._leave_out(self._suspect)
        self._suspect = None

    def _leave_out(self, last: int) -> None:
        self._strikes = 0
        with self._guard:
            while self._lines and self._lines[0].number <= last:
                self._lines.popleft()


def read(record: logging.LogRecord) -> dict[str, Any]:
    """Return what is reported of a record."""
    text = message(record)
    if record.exc_info and record.exc_info[0] is not None:
        kind, error, _ = record.exc_info
        text = f"{text}: {kind.__qualname__}: {encodable(without_secrets(str(error)))}"
    return {
        "time": datetime.fromtimestamp(record.created, UTC),
        "level": min(max(record.levelno, 0), 100),
        "logger": record.name[:64],
        "text": text[:MAX_LOG_TEXT],
    }
