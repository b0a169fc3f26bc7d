"""The outbox: all telemetry of the site on its way to the central side, or to a collector of its own.

``put`` only appends to a queue in memory. One thread merges what waits there and spools it, others forward it: so
neither a slow disk nor a dead network is felt by those who put.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path

from edge_worker.destination import Destination
from edge_worker.forwarding import Forwarder
from edge_worker.otlp import PARSED_MAX, SIGNALS, Signal
from edge_worker.spool import Spool
from edge_worker.turn import Turn

log = logging.getLogger(__name__)

MEMORY = 16 * 1024 * 1024
"""Bytes that wait for the writer at most."""

RECORD = 1024 * 1024
"""Bytes to which payloads are merged."""

LINGER, LINGER_LONG = 0.2, 2.0
"""Seconds in which payloads gather before they are written; the longer while they cannot leave soon anyway. A kill of
the daemon costs as much; what was waited for with ``written`` is safe."""

BACKLOG = 1024 * 1024
"""Bytes from which on it is so: each file takes a whole block of the disk, so few larger ones hold more."""

RETRY = 5.0
"""Seconds between attempts at a disk that fails."""

TELL = 60.0
"""Seconds between log lines about what was dropped."""

FORGET_AFTER = 3600.0
"""Seconds for which nobody has wanted it: one answer may be a replica's that was not told, or of a rollback."""

CLOSE_WITHIN = 3.0
"""Seconds for a last attempt to deliver."""

WRITTEN_WITHIN = 5.0
"""Seconds for which the disk is waited for."""

Payload = tuple[Signal, bytes, int]


class Outbox:
    """Takes OTLP payloads (serialized Export…ServiceRequest) and sees to it that they leave. Thread-safe."""

    def __init__(self, folder: Path, limit: int, destinations: Mapping[Signal, Destination]) -> None:
        """``limit`` is in bytes on disk; without destinations telemetry is off, and nothing is kept."""
        self._spool = Spool(folder, limit, self.drop)
        self._forwarder = Forwarder(self._spool, destinations)
        self._lock = threading.Lock()
        self._dropped: Counter[tuple[str, str]] = Counter()
        self._waiting: list[Payload] = []
        self._bytes = 0
        self._waiters: list[Future[None]] = []
        self._wanted = {signal: signal in destinations for signal in SIGNALS}
        self._unwanted_at: float | None = None
        self._central = [signal for signal, to in destinations.items() if to.central]
        self.on = bool(destinations)
        self._news = threading.Event()
        self._closing = threading.Event()
        self._turned = Turn("off")
        self._writer = threading.Thread(target=self._write, name="outbox-writer", daemon=True)

    @property
    def size(self) -> int:
        """Bytes that wait, in memory and on disk."""
        return self._bytes + self._spool.size

    @property
    def dropped(self) -> dict[tuple[str, str], int]:
        """Payloads dropped since the start, by signal and reason."""
        with self._lock:
            return dict(self._dropped)

    @property
    def errors(self) -> dict[str, str]:
        """Why the telemetry of a signal was not taken the last time, by signal."""
        return self._forwarder.errors

    @property
    def turns(self) -> dict[str, Turn]:
        """What its threads do."""
        return {"outbox": self._turned, **self._forwarder.turns}

    def start(self) -> None:
        """Begin to write and to forward."""
        if self.on:
            self._writer.start()
            self._forwarder.start()

    def put(self, signal: Signal, payload: bytes, items: int = 1) -> bool:
        """Take a payload; ``items`` is how many are merged in it. Never blocks; False where it was dropped."""
        with self._lock:
            if not self._wanted[signal]:
                # The central side has no collector: nobody misses it.
                return False
            taken = self._bytes + len(payload) <= MEMORY
            if taken:
                self._waiting.append((signal, payload, items))
                self._bytes += len(payload)
            else:
                self._dropped[signal, "memory_full"] += items
        self._news.set()
        return taken

    def wanted(self, signal: Signal) -> bool:
        """Return whether what is put now has a chance to be delivered."""
        return self._wanted[signal]

    async def written(self) -> None:
        """Return when all that was put until now is spooled; after some seconds also when it is not."""
        if not self.on:
            return
        done: Future[None] = Future()
        with self._lock:
            self._waiters.append(done)
        self._news.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(done), WRITTEN_WITHIN)

    def drop(self, signal: Signal, reason: str, items: int = 1) -> None:
        """Count payloads that somebody had to drop."""
        with self._lock:
            self._dropped[signal, reason] += items
        self._news.set()

    def told(self, wanted: bool) -> None:
        """Heed whether the central side has a collector; until it has said so, everything waits."""
        changed = self._forwarder.told(wanted)
        if not changed or not self._central:
            return
        with self._lock:
            self._wanted.update(dict.fromkeys(self._central, wanted))
            self._unwanted_at = None if wanted else time.monotonic()
        log.info("telemetry goes to the central side" if wanted else "the central side has no collector for telemetry")
        self._news.set()

    def close(self) -> None:
        """Send what is left, for a bounded time; the rest stays for the next start. Blocking."""
        if not self.on:
            return
        self._closing.set()
        self._news.set()
        self._writer.join(CLOSE_WITHIN)
        self._forwarder.close(CLOSE_WITHIN)
        if self.size:
            log.info("outbox: %d bytes of telemetry stay for the next start", self.size)

    def _write(self) -> None:
        told: Counter[tuple[str, str]] = Counter()
        due = 0.0
        closing = False
        while not closing:
            try:
                self._turned("writing")
                self._turn()
            except Exception:
                log.exception("outbox: some telemetry is lost")
            if (now := time.monotonic()) >= due and self._tell(told):
                due = now + TELL
            self._turned("waiting for telemetry")
            self._news.wait(RETRY if self._spool.memory else TELL)
            behind = self._forwarder.failing or self._spool.size >= BACKLOG
            closing = self._closing.wait(LINGER_LONG if behind else LINGER)
            self._news.clear()
        self._turn()
        self._tell(told)

    def _turn(self) -> None:
        with self._lock:
            taken, self._waiting = self._waiting, []
            waiters, self._waiters = self._waiters, []
        try:
            self._spool.settle()
            for signal, payload, items in merged(taken):
                self._spool.append(signal, payload, items)
            since = self._unwanted_at
            if since is not None and time.monotonic() - since >= FORGET_AFTER:
                for signal in self._central:
                    self._spool.clear(signal)
        finally:
            with self._lock:
                self._bytes -= sum(len(payload) for _, payload, _ in taken)
            for waiter in waiters:
                if waiter.set_running_or_notify_cancel():
                    waiter.set_result(None)
            self._forwarder.stir()

    def _tell(self, told: Counter[tuple[str, str]]) -> bool:
        news = {key: n for key, n in self.dropped.items() if n > told[key]}
        for (signal, reason), number in news.items():
            log.warning("outbox: %d payloads of %s were dropped since the start: %s", number, signal, reason)
        told.update({key: number - told[key] for key, number in news.items()})
        return bool(news)


def merged(payloads: list[Payload]) -> list[Payload]:
    """Return the payloads in their order, those of a signal merged to at most ``RECORD`` bytes.

    Serialized protobuf messages of one type, one after the other, are one message with the parts of both. One that was
    too large to be parsed stays alone: where it is refused, nothing else is.
    """
    found: list[Payload] = []
    for signal in SIGNALS:
        parts: list[bytes] = []
        size = items = 0
        for _, payload, number in (entry for entry in payloads if entry[0] == signal):
            alone = len(payload) > PARSED_MAX
            if parts and (alone or size + len(payload) > RECORD):
                found.append((signal, b"".join(parts), items))
                parts, size, items = [], 0, 0
            if alone:
                found.append((signal, payload, number))
                continue
            parts.append(payload)
            size += len(payload)
            items += number
        if parts:
            found.append((signal, b"".join(parts), items))
    return found
