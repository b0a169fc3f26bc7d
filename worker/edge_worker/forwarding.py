"""Brings the records of the spool to their destinations: a lane and a thread per signal, each waiting by itself."""

from __future__ import annotations

import gzip
import logging
import random
import threading
import time
from collections.abc import Mapping
from typing import Protocol

from edge_worker import otlp
from edge_worker.destination import Destination, Response
from edge_worker.otlp import Signal
from edge_worker.plan import BACKOFF_LAST, Delivery, backoff, jittered, read_delivery, returning
from edge_worker.spool import Record
from edge_worker.turn import Turn

log = logging.getLogger(__name__)

BATCH = 1024 * 1024
"""Bytes of one request, before compression; a larger record goes alone."""

GATHER = 1.0
"""Seconds of rest after a delivery that left nothing: a request costs the central side much the same, however full."""

REST_MAX = 5.0
"""Seconds of rest at most after another: it rests as long as that took, so that a backlog does not fill the link."""

NO_COLLECTOR_PAUSE = 60.0
"""Seconds, after a destination has said that it takes no such signal."""

FAULTS = (500, 501, 505)
"""Answers that may be due to the record; other statuses from 500 on mean the way to the far end."""

SUSPECT = 5
"""Failures in a row of that kind, after which another record is tried."""

BLAMED = 5
"""Times that others were delivered and a record was not, after which it is dropped."""

REFUSALS = 100
"""Refusals in a row, after which it is not the records: they are no longer split to find the bad one."""


class Source(Protocol):
    """What the forwarder needs of the spool."""

    def waits(self, signal: Signal) -> bool:
        """Return whether there is a record."""

    def batch(self, signal: Signal, limit: int) -> list[tuple[Record, bytes]]:
        """Return the first records, of ``limit`` bytes together or one."""

    def append(self, signal: Signal, payload: bytes, payloads: int) -> None:
        """Keep a record, behind the others."""

    def postpone(self, record: Record) -> None:
        """Put a record behind the others."""

    def remove(self, records: list[Record], reason: str | None = None) -> None:
        """Forget records, with the reason if they are dropped."""


class Forwarder:
    """Owns the threads that send."""

    def __init__(self, spool: Source, destinations: Mapping[Signal, Destination]) -> None:
        self._lanes = [Lane(spool, signal, to) for signal, to in destinations.items()]
        self._told: bool | None = None

    @property
    def failing(self) -> bool:
        """Whether something cannot leave."""
        return any(lane.failures for lane in self._lanes)

    @property
    def turns(self) -> dict[str, Turn]:
        """What each lane does."""
        return {f"telemetry-{lane.signal}": lane.turn for lane in self._lanes}

    @property
    def errors(self) -> dict[str, str]:
        """Why the telemetry of a signal was not taken the last time, by signal."""
        return {lane.signal: lane.error for lane in self._lanes if lane.error is not None}

    def start(self) -> None:
        """Begin to send."""
        for lane in self._lanes:
            lane.thread.start()

    def stir(self) -> None:
        """There may be new records."""
        for lane in self._lanes:
            lane.news.set()

    def told(self, wanted: bool) -> bool:
        """Heed whether the central side has a collector; return whether that is news."""
        if wanted == self._told:
            return False
        self._told = wanted
        for lane in self._lanes:
            if lane.destination.central:
                lane.wanted, lane.due, lane.failures = wanted, 0.0, 0
        self.stir()
        return True

    def close(self, within: float) -> None:
        """Try each lane once more and end; blocks for ``within`` seconds at most."""
        end = time.monotonic() + within
        for lane in self._lanes:
            lane.close(end)
        for lane in self._lanes:
            lane.thread.join(max(0.0, end - time.monotonic()))


class Lane:
    """One signal on its way."""

    def __init__(self, spool: Source, signal: Signal, destination: Destination) -> None:
        self._spool = spool
        self.signal = signal
        self.turn = Turn()
        self.error: str | None = None
        """Why nothing was taken the last time; None once it was."""
        self.destination = destination
        self.wanted: bool | None = None if destination.central else True
        """None until the central side has said it: what there is waits."""
        self.failures = 0
        self.due = 0.0
        """When to try again, on the monotonic clock."""
        self._refusals = 0
        """In a row."""
        self._dropping = False
        """The last record was refused."""
        self._singly = 0
        """Records to send one by one, because together they were refused: one of them is bad."""
        self._delivered = False
        """Since a record was last blamed."""
        self.news = threading.Event()
        self._closing = threading.Event()
        self._end = float("inf")
        """When to end at the latest, on the monotonic clock."""
        self.thread = threading.Thread(target=self._run, name=f"outbox-{signal}", daemon=True)

    def close(self, end: float) -> None:
        """Have it try once more, and end."""
        self._end, self.due = end, 0.0
        self._closing.set()
        self.news.set()

    def _run(self) -> None:
        while (now := time.monotonic()) < self._end:
            ready = self.wanted and self._spool.waits(self.signal)
            if ready and self.due <= now:
                self.turn("sending")
                self._try()
            elif self._closing.is_set():
                return
            else:
                self.turn(self._rest(ready, now))
                self.news.wait(self.due - now if ready else None)
                self.news.clear()

    def _rest(self, ready: bool | None, now: float) -> str:
        if ready:
            return f"waiting {self.due - now:.0f} s to try again"
        return "waiting for telemetry" if self.wanted else "off: the central side has no collector"

    def _try(self) -> None:
        try:
            self._send()
        except Exception:
            log.exception("telemetry (%s) could not be sent", self.signal)
            self._later(Response(None, "a defect of the daemon"))

    def _send(self) -> None:
        # While it fails, one record is enough to find out.
        found = self._spool.batch(self.signal, 0 if self._singly or self.failures else BATCH)
        if not found:
            return
        records = [record for record, _ in found]
        body = gzip.compress(b"".join(payload for _, payload in found), compresslevel=1)
        began = time.monotonic()
        answer = self.destination.send(body)
        meaning = read_delivery(answer.status)
        if meaning is Delivery.LATER or meaning is Delivery.NOT_ALLOWED or meaning is Delivery.NO_COLLECTOR:
            self._later(answer)
            if answer.status in FAULTS and self.failures >= SUSPECT and len(records) == 1:
                self._suspect(*found[0], answer)
            return
        if self.failures:
            log.info("telemetry (%s) is taken again", self.signal)
        self.failures = 0
        self._singly = max(0, self._singly - 1)
        if meaning is Delivery.TAKEN:
            self._refusals, self._dropping, self._delivered, self.error = 0, False, True, None
            self._spool.remove(records)
            rest = min(time.monotonic() - began, REST_MAX)
            self._closing.wait(rest if self._spool.waits(self.signal) else max(rest, GATHER))
        elif len(records) > 1:
            self._singly = len(records)
        else:
            self._refused(*found[0], answer)

    def _refused(self, record: Record, payload: bytes, answer: Response) -> None:
        self._refusals += 1
        if self._refusals >= REFUSALS or not self._split(record, payload):
            self._drop(record, answer)

    def _suspect(self, record: Record, payload: bytes, answer: Response) -> None:
        """Let others go before a record that may be what the far end fails at: if so they are delivered."""
        record.blamed += self._delivered
        self._delivered = False
        if record.blamed and self._split(record, payload):
            return
        if record.blamed >= BLAMED:
            self._drop(record, answer)
        else:
            self._spool.postpone(record)

    def _split(self, record: Record, payload: bytes) -> bool:
        """Make two records of one, behind the others; return whether it has two parts."""
        parts = otlp.halves(payload)
        if parts is None:
            return False
        for part, payloads in zip(parts, (record.payloads // 2, -(-record.payloads // 2)), strict=True):
            self._spool.append(self.signal, part, max(1, payloads))
        self._spool.remove([record])
        return True

    def _drop(self, record: Record, answer: Response) -> None:
        # Once, for this line is telemetry, too, and may be refused in its turn.
        level = logging.DEBUG if self._dropping else logging.WARNING
        log.log(level, "telemetry (%s) was refused and is dropped: %s", self.signal, answer.detail)
        self._dropping = True
        self.error = f"refused: {answer.detail}"
        self._spool.remove([record], "refused")

    def _later(self, answer: Response) -> None:
        draw = random.random()  # noqa: S311 - jitter, not a secret
        meaning = read_delivery(answer.status)
        if meaning is Delivery.NO_COLLECTOR:
            pause = jittered(NO_COLLECTOR_PAUSE, draw)
        elif meaning is Delivery.NOT_ALLOWED:
            pause = jittered(BACKOFF_LAST, draw)
        elif answer.retry_after is not None:
            pause = max(backoff(self.failures, draw), returning(answer.retry_after, draw))
        else:
            pause = backoff(self.failures, draw)
        # The first failures of a restart or a network hiccup are not worth a warning each.
        worth = self.failures in ((2, 5) if meaning is Delivery.LATER else (0,)) or self.failures % 20 == 19
        text = "telemetry (%s) cannot be delivered: %s; keeping it and trying again (failure %d)"
        log.log(logging.WARNING if worth else logging.DEBUG, text, self.signal, answer.detail, self.failures + 1)
        self.failures += 1
        self.error = answer.detail
        self.due = float("inf") if self._closing.is_set() else time.monotonic() + pause
