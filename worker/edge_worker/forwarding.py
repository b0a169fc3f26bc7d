"""Brings the records of the spool to their destinations: one thread, and a lane per signal that waits by itself."""

from __future__ import annotations

import gzip
import logging
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from edge_worker.destination import Destination, Response
from edge_worker.otlp import Signal
from edge_worker.plan import BACKOFF_LAST, Delivery, backoff, jittered, read_delivery, returning
from edge_worker.spool import Record

log = logging.getLogger(__name__)

BATCH = 1024 * 1024
"""Bytes of one request, before compression; a larger record goes alone."""

REST_MAX = 5.0
"""Seconds of rest at most after a delivery: it rests as long as that took, so that a backlog does not fill the link."""

NO_COLLECTOR_PAUSE = 60.0
"""Seconds, after a destination has said that it takes no such signal."""


class Source(Protocol):
    """What the forwarder needs of the spool."""

    def waits(self, signal: Signal) -> bool:
        """Return whether there is a record."""

    def batch(self, signal: Signal, limit: int) -> list[tuple[Record, bytes]]:
        """Return the oldest records, of ``limit`` bytes together or one."""

    def remove(self, records: list[Record], reason: str | None = None) -> None:
        """Forget records, with the reason if they are dropped."""


@dataclass
class Lane:
    """One signal on its way."""

    signal: Signal
    destination: Destination
    wanted: bool | None
    """None until the central side has said it: what there is waits."""
    failures: int = 0
    due: float = 0.0
    """When to try again, on the monotonic clock."""
    refusing: bool = False
    """The last record was refused."""
    tried: float = 0.0
    """When it was its turn."""
    singly: int = 0
    """Records to send one by one, because together they were refused: one of them is bad."""


class Forwarder:
    """Owns the thread that sends."""

    def __init__(self, spool: Source, destinations: Mapping[Signal, Destination]) -> None:
        self._spool = spool
        self._lanes = [Lane(signal, to, None if to.central else True) for signal, to in destinations.items()]
        self._told: bool | None = None
        self._news = threading.Event()
        self._closing = threading.Event()
        self._end = float("inf")
        """When to end at the latest, on the monotonic clock."""
        self._thread = threading.Thread(target=self._run, name="outbox-forward", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stir(self) -> None:
        """There may be new records."""
        self._news.set()

    def told(self, wanted: bool) -> bool:
        """Heed whether the central side has a collector; return whether that is news."""
        if wanted == self._told:
            return False
        self._told = wanted
        for lane in self._lanes:
            if lane.destination.central:
                lane.wanted, lane.due, lane.failures = wanted, 0.0, 0
        self._news.set()
        return True

    def close(self, within: float) -> None:
        """Try each lane once more and end; blocks for ``within`` seconds at most."""
        self._end = time.monotonic() + within
        for lane in self._lanes:
            lane.due = 0.0
        self._closing.set()
        self._news.set()
        self._thread.join(within)

    def _run(self) -> None:
        while (now := time.monotonic()) < self._end:
            ready = [lane for lane in self._lanes if lane.wanted and self._spool.waits(lane.signal)]
            due = [lane for lane in ready if lane.due <= now]
            if due:
                lane = min(due, key=lambda lane: lane.tried)
                lane.tried = now
                self._try(lane)
            elif self._closing.is_set():
                return
            else:
                self._news.wait(min((lane.due - now for lane in ready), default=None))
                self._news.clear()

    def _try(self, lane: Lane) -> None:
        try:
            self._send(lane)
        except Exception:
            log.exception("telemetry (%s) could not be sent", lane.signal)
            self._later(lane, Response(None, "a defect of the daemon"))

    def _send(self, lane: Lane) -> None:
        found = self._spool.batch(lane.signal, 0 if lane.singly else BATCH)
        if not found:
            return
        records = [record for record, _ in found]
        body = gzip.compress(b"".join(payload for _, payload in found), compresslevel=1)
        began = time.monotonic()
        answer = lane.destination.send(body)
        meaning = read_delivery(answer.status)
        if meaning is Delivery.LATER or meaning is Delivery.NOT_ALLOWED or meaning is Delivery.NO_COLLECTOR:
            self._later(lane, answer)
            return
        if lane.failures:
            log.info("telemetry (%s) is taken again", lane.signal)
        lane.failures = 0
        lane.singly = max(0, lane.singly - 1)
        if meaning is Delivery.TAKEN:
            lane.refusing = False
            self._spool.remove(records)
            self._closing.wait(min(time.monotonic() - began, REST_MAX))
        elif len(records) > 1:
            lane.singly = len(records)
        else:
            # Once, for this line is telemetry, too, and may be refused in its turn.
            level = logging.DEBUG if lane.refusing else logging.WARNING
            log.log(level, "telemetry (%s) was refused and is dropped: %s", lane.signal, answer.detail)
            lane.refusing = True
            self._spool.remove(records, "refused")

    def _later(self, lane: Lane, answer: Response) -> None:
        draw = random.random()  # noqa: S311 - jitter, not a secret
        meaning = read_delivery(answer.status)
        if meaning is Delivery.NO_COLLECTOR:
            pause = jittered(NO_COLLECTOR_PAUSE, draw)
        elif meaning is Delivery.NOT_ALLOWED:
            pause = jittered(BACKOFF_LAST, draw)
        elif answer.retry_after is not None:
            pause = max(backoff(lane.failures, draw), returning(answer.retry_after, draw))
        else:
            pause = backoff(lane.failures, draw)
        # The first failures of a restart or a network hiccup are not worth a warning each.
        worth = lane.failures in ((2, 5) if meaning is Delivery.LATER else (0,)) or lane.failures % 20 == 19
        text = "telemetry (%s) cannot be delivered: %s; keeping it and trying again (failure %d)"
        log.log(logging.WARNING if worth else logging.DEBUG, text, lane.signal, answer.detail, lane.failures + 1)
        lane.failures += 1
        lane.due = float("inf") if self._closing.is_set() else time.monotonic() + pause
