"""Ships a job's log file: byte ranges in order from the server's cursor, until the whole of it is stored there."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from edge_otel.telemetry import context
from edge_otel.telemetry.context import Carrier
from edge_worker.faults import Fault, Refused, Rewind, Stale, Unreachable
from edge_worker.journal import Ticket
from edge_worker.patience import persist, wait
from edge_worker.settings import Pace
from edge_worker.spans import Spans

log = logging.getLogger(__name__)

SMALLEST_CHUNK = 1024
"""Bytes; a server that finds this too large will not take the log at all."""


class LogTransport(Protocol):
    """What the shipper needs of the wire."""

    async def append_log(self, ticket: Ticket, start: int, body: bytes) -> tuple[int, int]:
        """Send bytes from offset ``start``; return the server's cursor and the HTTP status. Raises Fault."""

    async def log_cursor(self, ticket: Ticket) -> int:
        """Return the server's cursor. Raises Fault."""


@dataclass(frozen=True)
class _Failures:
    """One chunk's failures in a row, of which the last is kept."""

    carrier: Carrier
    start: float
    end: float
    fault: Fault


class LogShipper:
    """Follows one log file. Its failures are its own: nothing of a job waits for it but its folder."""

    def __init__(
        self, transport: LogTransport, pace: Callable[[], Pace], spans: Spans, ticket: Ticket, path: Path | None
    ) -> None:
        self._transport = transport
        self._pace = pace
        self._spans = spans
        self._failures: _Failures | None = None
        self._ticket = ticket
        self._path = path
        self._offset = 0
        self._chunk = 0
        self._length: int | None = None
        self._ended = asyncio.Event()

    def finish(self, length: int) -> None:
        """Tell that the log is ``length`` bytes long and will not grow."""
        self._length = length
        self._ended.set()

    @property
    def backlog(self) -> int:
        """Bytes that the server does not have yet."""
        return max(0, (_size(self._path) if self._length is None else self._length) - self._offset)

    async def ship(self, resume: bool = False) -> None:
        """Return when all is stored, or when the server will never take it. Raises Stale.

        ``resume`` asks for the server's cursor first.
        """
        if resume:
            try:
                self._offset = await self._transport.log_cursor(self._ticket)
            except Fault as fault:
                log.debug("job %s: cursor of its log: %s", self._ticket.id, fault)
        while self._length is None or self._offset < self._length:
            body = await asyncio.to_thread(self._read)
            if not body:
                if self._length is not None and _size(self._path) < self._length:
                    log.error("job %s: its log became shorter; the rest is lost", self._ticket.id)
                    return
                await wait(self._ended, self._pace().log_interval)
                continue
            start = self._offset
            try:
                self._offset = await persist(lambda: self._send(start, body), f"log of job {self._ticket.id}")  # noqa: B023
            except Stale:
                raise
            except Refused as refusal:
                if refusal.status != 413 or len(body) <= SMALLEST_CHUNK:
                    log.error("job %s: the server does not take its log: %s", self._ticket.id, refusal)  # noqa: TRY400
                    return
                self._chunk = max(SMALLEST_CHUNK, len(body) // 2)
            finally:
                if (row := self._failures) is not None:
                    # An outage of an hour is one span for the chunk, not a hundred.
                    self._spans.shipped(self._ticket, row.carrier, row.start, row.end, start, len(body), row.fault)
                    self._failures = None

    async def _send(self, start: int, body: bytes) -> int:
        carrier, begun = context.child_of(self._ticket.span), time.time()
        try:
            try:
                cursor, status = await self._transport.append_log(replace(self._ticket, span=carrier), start, body)
            except Rewind as rewind:
                cursor, status = rewind.cursor, rewind.status
            if cursor == start:
                # Without this an answer that makes no progress would be asked for as fast as it comes.
                raise Unreachable(f"the server's cursor stays at {cursor}", status=status)
        except Fault as fault:
            since = self._failures.start if self._failures else begun
            self._failures = _Failures(carrier, since, time.time(), fault)
            raise
        self._spans.shipped(self._ticket, carrier, begun, time.time(), start, len(body), status)
        return cursor

    def _read(self) -> bytes:
        if self._path is None:
            return b""
        limit = self._chunk or self._pace().log_chunk_bytes
        if self._length is not None:
            limit = min(limit, self._length - self._offset)
        try:
            with self._path.open("rb") as handle:
                handle.seek(self._offset)
                return handle.read(limit)
        except FileNotFoundError:
            return b""
        except OSError as error:
            log.warning("job %s: cannot read its log: %s", self._ticket.id, error)
            return b""


def _size(path: Path | None) -> int:
    try:
        return path.stat().st_size if path else 0
    except OSError:
        return 0


def measure(path: Path | None) -> tuple[int, str]:
    """Return the length in bytes and the SHA-256 of a log file; a missing one is empty."""
    digest = hashlib.sha256()
    length = 0
    try:
        if path is not None:
            with path.open("rb") as handle:
                while block := handle.read(256 * 1024):
                    digest.update(block)
                    length += len(block)
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            log.warning("cannot read %s: %s", path, error)
    return length, digest.hexdigest()


def append(path: Path | None, text: list[str], level: str = "error") -> None:
    """Append events to a task's log in Airflow's format, one JSON object a line."""
    if path is None or not text:
        return
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    records = ({"timestamp": now, "level": level, "event": line, "logger": "edge.worker"} for line in text)
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as handle:
            # A process killed while it wrote leaves half a line.
            if handle.tell():
                handle.seek(-1, os.SEEK_END)
                if handle.read(1) != b"\n":
                    data = b"\n" + data
            handle.write(data)
    except OSError as error:
        log.warning("cannot write to %s: %s", path, error)


def tail(path: Path, lines: int = 100) -> list[str]:
    """Return the last lines of a job's captured output, at most 16 KiB of it."""
    try:
        with path.open("rb") as handle:
            handle.seek(max(0, path.stat().st_size - 16 * 1024))
            text = handle.read().decode(errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-lines:]
