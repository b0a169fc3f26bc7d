"""The daemon's own log, to stderr: for people by default, or JSON lines."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def heed_callbacks(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what a callback of the event loop raised; an exception handler for ``loop``."""
    # When a proxy hangs up, websockets ends a stream that it has ended before; we tell of the connection.
    if not isinstance(context.get("exception"), EOFError):
        loop.default_exception_handler(context)


def configure(level: str, style: Literal["text", "json"]) -> None:
    """Send this package's log to stderr, and warnings of the libraries."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
    handler.setFormatter(JsonLines() if style == "json" else text)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("edge_worker").setLevel(level.upper())
    # It warns of each broken connection, which we do ourselves, once.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    # Its errors come with a traceback, and with DEBUG it would show the token; we tell of each broken connection.
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
