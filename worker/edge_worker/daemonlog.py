"""The daemon's own log, to stderr: text for people, or JSON lines with the trace that each line belongs to."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

from edge_otel.telemetry import context
from edge_otel.telemetry.redaction import without_secrets
from edge_worker import subject


def message(record: logging.LogRecord) -> str:
    """Return what a record says, as it may leave this machine: without secrets, and such as can be encoded."""
    return encodable(without_secrets(record.getMessage()))


def encodable(text: str) -> str:
    """Return a text without what stands for bytes of file names that are no text."""
    return text.encode(errors="replace").decode()


class TextLines(logging.Formatter):
    """Lines for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the exception below it."""
        return without_secrets(super().format(record))


class JsonLines(logging.Formatter):
    """One JSON object a line; ids of the trace have the names of OpenTelemetry's log format."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": without_secrets(record.getMessage()),
        }
        about = subject.current()
        if about.carrier:
            line["trace_id"], line["span_id"] = context.ids(about.carrier)
            line["trace_flags"] = f"{int(context.sampled(about.carrier)):02x}"
        line.update(about.attributes)
        if record.exc_info:
            line["exception"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(line)


def heed_callbacks(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what a callback of the event loop raised; an exception handler for ``loop``."""
    # When a proxy hangs up, websockets ends a stream that it has ended before; we tell of the connection.
    if not isinstance(context.get("exception"), EOFError):
        loop.default_exception_handler(context)


def configure(level: str, style: Literal["auto", "text", "json"], *more: logging.Handler) -> None:
    """Send this package's log, and warnings of the libraries, to stderr and to ``more``."""
    handler = logging.StreamHandler(sys.stderr)
    plain = style == "text" or (style == "auto" and sys.stderr.isatty())
    handler.setFormatter(TextLines("%(asctime)s %(levelname)-7s %(message)s") if plain else JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler, *more], force=True)
    set_level(level)
    # It warns of each broken connection, which we do ourselves, once.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    # Its errors come with a traceback, and with DEBUG it would show the token; we tell of each broken connection.
    logging.getLogger("websockets").setLevel(logging.CRITICAL)


def set_level(level: str) -> None:
    """Say what is of this level, or more important: debug, info, warning or error."""
    logging.getLogger("edge_worker").setLevel(level.upper())
