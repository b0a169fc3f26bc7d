"""What the daemon itself says in a task's log, and what it quotes there."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

log = logging.getLogger(__name__)


def records(text: list[str], level: str = "error") -> bytes:
    """Return events in Airflow's format, one JSON object a line."""
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    found = ({"timestamp": now, "level": level, "event": line, "logger": "edge.worker"} for line in text)
    return "".join(json.dumps(record) + "\n" for record in found).encode()


def append(path: Path | None, text: list[str], level: str = "error") -> None:
    """Append events to a task's log."""
    if path is None or not text:
        return
    data = records(text, level)
    try:
        # Also the job's own folder, and those above it, where they were removed.
        for folder in [folder for folder in reversed(path.parents) if not folder.exists()]:
            folder.mkdir(mode=0o700, exist_ok=True)
        with path.open("a+b") as handle:
            # A process killed while it wrote leaves half a line.
            if handle.tell():
                handle.seek(-1, os.SEEK_END)
                if handle.read(1) != b"\n":
                    data = b"\n" + data
            handle.write(data)
    except OSError as error:
        log.warning("cannot write to %s: %s", path, error)


def explain(path: Path | None, error: str, output: Path) -> None:
    """Append why a job has ended; in a log that is empty also the end of the job's captured output."""
    try:
        empty = path is not None and not path.stat().st_size
    except OSError:
        empty = True
    append(path, [error, *(tail(output) if empty else [])])


def tail(path: Path, lines: int = 100) -> list[str]:
    """Return the last lines of a job's captured output, at most 16 KiB of it."""
    try:
        with path.open("rb") as handle:
            handle.seek(max(0, path.stat().st_size - 16 * 1024))
            text = handle.read().decode(errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-lines:]
