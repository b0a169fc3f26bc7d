"""The daemon's log as OTLP: records wait in bounded memory until a thread encodes them for the outbox.

The SDK's logging handler is not used: it is deprecated there. Format: https://opentelemetry.io/docs/specs/otel/logs/data-model/
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edge_otel import __version__
from edge_otel.telemetry import context, names, spans
from edge_otel.telemetry.redaction import without_secrets
from edge_worker import subject
from edge_worker.daemonlog import encodable, message
from edge_worker.otlp import Signal
from edge_worker.subject import Subject

WAITING = 1024
"""Records that wait at most; then the oldest go."""

BATCH = 128
"""Records of one payload."""

LINGER = 1.0
"""Seconds in which records gather."""

TEXT_MAX, STACK_MAX = 4096, 8192
"""Characters of a record, and of its traceback."""

CLOSE_WITHIN = 2.0
"""Seconds for the last records."""

_WAY_OUT = ("edge_worker.outbox", "edge_worker.forwarding", "edge_worker.spool", "edge_worker.destination")
"""Loggers of the way that the records themselves take: what these say of every payload would never end."""

_SEVERITIES = ((logging.CRITICAL, 21), (logging.ERROR, 17), (logging.WARNING, 13), (logging.INFO, 9), (0, 5))

Values = dict[str, str | int]


class LogOutbox(Protocol):
    """What the export needs of the outbox."""

    on: bool
    """Telemetry is not switched off."""

    def wanted(self, signal: Signal) -> bool:
        """Return whether what is put now has a chance."""

    def put(self, signal: Signal, payload: bytes, items: int = 1) -> bool:
        """Take a payload; never blocks."""


@dataclass(frozen=True)
class Line:
    """One record, as text."""

    time: float
    level: int
    level_name: str
    logger: str
    text: str
    about: Subject
    more: Values


def severity(level: int) -> int:
    """Return OpenTelemetry's severity number of a level of ``logging``."""
    return next(number for least, number in _SEVERITIES if level >= least)


class LogExport(logging.Handler):
    """Keeps records from its making on, and sends them from ``start`` on. Never blocks who logs."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: deque[Line] = deque(maxlen=WAITING)
        self._lost = 0
        self._news = threading.Event()
        self._full = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self, outbox: LogOutbox, resource: Mapping[str, str]) -> None:
        """Begin to send; where telemetry is off, stop keeping."""
        if not outbox.on:
            logging.getLogger().removeHandler(self)
            self._waiting.clear()
            return
        self._thread = threading.Thread(target=self._run, args=(outbox, resource), name="log-export", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hand over what is left, for a bounded time. Blocking."""
        if self._thread is not None and not self._closing:
            self._closing = True
            self._full.set()
            self._news.set()
            self._thread.join(CLOSE_WITHIN)
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        if threading.current_thread() is self._thread:
            return
        if record.name in _WAY_OUT and record.levelno < logging.WARNING:
            return
        try:
            line = _line(record)
        except Exception:  # noqa: BLE001 - as every handler of ``logging``
            self.handleError(record)
            return
        if len(self._waiting) == WAITING:
            self._lost += 1
        self._waiting.append(line)
        self._news.set()
        if len(self._waiting) >= BATCH:
            self._full.set()

    def _run(self, outbox: LogOutbox, resource: Mapping[str, str]) -> None:
        whole: Mapping[str, Any] = {}
        closing = False
        while not closing:
            self._news.wait()
            self._full.wait(LINGER)
            self._news.clear()
            self._full.clear()
            # Before the last look, or a line that comes in between would stay.
            closing = self._closing
            while lines := self._take():
                if not outbox.wanted("logs"):
                    continue
                try:
                    whole = whole or spans.sdk_resource(resource).attributes
                    outbox.put("logs", encode(lines, whole, time.time()), len(lines))
                except Exception:
                    # To stderr alone: see ``emit``.
                    logging.getLogger(__name__).exception("%d lines of the log are not exported", len(lines))

    def _take(self) -> list[Line]:
        lines: list[Line] = []
        while self._waiting and len(lines) < BATCH:
            lines.append(self._waiting.popleft())
        if self._lost:
            text = f"{self._lost} lines of this log were dropped here: there were too many"
            self._lost = 0
            lines.append(Line(time.time(), logging.WARNING, "WARNING", __name__, text, Subject(), {}))
        return lines


def _line(record: logging.LogRecord) -> Line:
    more: Values = {}
    if record.exc_info and record.exc_info[0] is not None:
        kind, error, trace = record.exc_info
        more[names.EXCEPTION_TYPE] = kind.__qualname__
        more[names.EXCEPTION_MESSAGE] = encodable(without_secrets(str(error)))[:TEXT_MAX]
        stack = "".join(traceback.format_exception(kind, error, trace))
        more[names.EXCEPTION_STACKTRACE] = encodable(without_secrets(stack))[-STACK_MAX:]
    text, about = message(record)[:TEXT_MAX], subject.current()
    return Line(record.created, record.levelno, record.levelname, record.name, text, about, more)


def encode(lines: list[Line], resource: Mapping[str, Any], now: float) -> bytes:
    """Return the lines as a serialized ExportLogsServiceRequest; one scope for each logger."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
    from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs, ScopeLogs

    whole = ResourceLogs()
    whole.resource.attributes.extend(_pairs(resource))
    scopes: dict[str, ScopeLogs] = {}
    for line in lines:
        if line.logger not in scopes:
            scopes[line.logger] = ScopeLogs(scope=InstrumentationScope(name=line.logger, version=__version__))
        record = scopes[line.logger].log_records.add()
        record.time_unix_nano, record.observed_time_unix_nano = int(line.time * 1e9), int(now * 1e9)
        record.severity_number, record.severity_text = severity(line.level), line.level_name
        record.body.string_value = line.text
        record.attributes.extend(_pairs({**line.about.attributes, **line.more}))
        if line.about.carrier:
            trace, span = context.ids(line.about.carrier)
            record.trace_id, record.span_id = bytes.fromhex(trace), bytes.fromhex(span)
            record.flags = int(context.sampled(line.about.carrier))
    whole.scope_logs.extend(scopes.values())
    request: bytes = ExportLogsServiceRequest(resource_logs=[whole]).SerializeToString()
    return request


def _pairs(attributes: Mapping[str, Any]) -> list[Any]:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

    return [
        KeyValue(key=name, value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value))
        for name, value in attributes.items()
        if isinstance(value, int | str)
    ]
