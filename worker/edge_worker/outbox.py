"""The outbox: all telemetry of the site on its way to the central side, or to a collector of its own."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import Literal

Signal = Literal["traces", "metrics", "logs"]

SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")

MEMORY = 16 * 1024 * 1024
"""Bytes that wait for the disk at most."""


class Outbox:
    """Takes OTLP payloads (serialized Export…ServiceRequest) and sees to it that they leave. Thread-safe."""

    def __init__(self) -> None:
        self.dropped: Counter[tuple[str, str]] = Counter()
        """Payloads dropped since the start, by signal and reason."""
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Signal, bytes, int]] = deque()
        self._bytes = 0

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self._bytes

    def put(self, signal: Signal, payload: bytes, items: int = 1) -> bool:
        """Take a payload; ``items`` is how many are merged in it. Never blocks; False where it was dropped."""
        with self._lock:
            if self._bytes + len(payload) > MEMORY:
                self.dropped[signal, "memory_full"] += items
                return False
            self._waiting.append((signal, payload, items))
            self._bytes += len(payload)
        return True

    def told(self, wanted: bool) -> None:
        """Heed whether the central side has a collector; until it has said so, everything waits."""

    def close(self) -> None:
        """Send what is left, for a bounded time; the rest stays for the next start."""
