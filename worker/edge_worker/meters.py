"""The worker's metrics: what happens is told to them, the rest they read; at every interval all go to the outbox."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_otel.telemetry import names
from edge_worker.facts import Fact
from edge_worker.journal import Ticket, Verdict
from edge_worker.outbox import Outbox
from edge_worker.patience import until_due
from edge_worker.readings import HostReadings, Reading
from edge_worker.turn import Turn
from edge_worker.usage import JobUsage, Running

if TYPE_CHECKING:
    from edge_worker.instruments import Instruments

log = logging.getLogger(__name__)

EARLY = 10_000
"""Events that wait at most for the next collection."""

FIRST_AFTER = 1.0
"""Seconds until the first collection: a start is not slowed by loading the SDK."""

LAST_WITHIN = 2.0
"""Seconds for the last collection, at the end."""


@dataclass(frozen=True)
class Moment:
    """What the event loop knows at the time of a collection."""

    jobs: list[Running]
    log_backlog: int
    facts: Mapping[str, Fact]
    """The user's own."""


class Meters:
    """Every method but ``run`` and ``close`` may be called from any thread; none raises, and none blocks."""

    def __init__(self, resource: Mapping[str, str], outbox: Outbox, folder: Path) -> None:
        """``folder``: of whose file system to tell."""
        self._resource = resource
        self._outbox = outbox
        self._events: deque[tuple[names.Metric, float, dict[str, str]]] = deque(maxlen=EARLY)
        self._usage = JobUsage()
        self._host = HostReadings(folder)
        self._instruments: Instruments | None = None
        self._thread = ThreadPoolExecutor(1, "meters")
        self._look: Callable[[], Moment] | None = None
        self.turn = Turn("off")

    def heartbeat(self, seconds: float, ok: bool) -> None:
        """A heartbeat was answered, or was not."""
        self._tell(names.HEARTBEAT_SECONDS, seconds, {names.RESULT: _result(ok)})

    def launched(self, seconds: float, mode: str, ok: bool) -> None:
        """An attempt to start a job's process is over."""
        self._tell(names.LAUNCH_SECONDS, seconds, {names.JOB_LAUNCH_MODE: mode, names.RESULT: _result(ok)})

    def registered_again(self) -> None:
        """The server has taken this worker once more."""
        self._tell(names.RECONNECTS, 1, {})

    def ended(self, ticket: Ticket, verdict: Verdict) -> None:
        """A job has ended."""
        if self._outbox.wanted("metrics"):
            self._usage.ended((ticket.id, ticket.claim), ticket.queue, verdict.cpu_time)

    async def run(self, interval: Callable[[], float], look: Callable[[], Moment]) -> None:
        """Collect every ``interval()`` seconds until cancelled. ``look`` is called in the event loop's thread."""
        if not self._outbox.on:
            return
        self._look = look
        self.turn("waiting to begin")
        await asyncio.sleep(min(FIRST_AFTER, interval()))
        while True:
            begun = time.monotonic()
            if self._outbox.wanted("metrics"):
                self.turn("collecting")
                try:
                    await self._collect(look())
                except Exception:
                    log.exception("metrics of this time are lost")
            self.turn("waiting for the next interval")
            await until_due(begun, interval)

    async def close(self) -> None:
        """Collect once more, within a bounded time."""
        if self._look is not None and self._instruments is not None and self._outbox.wanted("metrics"):
            try:
                async with asyncio.timeout(LAST_WITHIN):
                    await self._collect(self._look())
            except TimeoutError:
                log.debug("the last metrics take too long")
            except Exception:
                log.exception("the last metrics are lost")
        self._thread.shutdown(wait=False)

    def _tell(self, metric: names.Metric, value: float, attributes: dict[str, str]) -> None:
        if self._outbox.wanted("metrics"):
            self._events.append((metric, value, attributes))

    async def _collect(self, moment: Moment) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.shield(loop.run_in_executor(self._thread, self._turn, moment))

    def _turn(self, moment: Moment) -> None:
        if self._instruments is None:
            from edge_worker.instruments import Instruments

            self._instruments = Instruments(self._resource, lambda payload: self._outbox.put("metrics", payload))
        while self._events:
            self._instruments.tell(*self._events.popleft())
        self._instruments.export(
            {
                **self._host.read(),
                **self._usage.read(moment.jobs),
                names.LOG_BACKLOG: [(moment.log_backlog, {})],
                names.OUTBOX_SIZE: [(self._outbox.size, {})],
                names.OUTBOX_DROPPED: [
                    (count, {names.SIGNAL: signal, names.REASON: reason})
                    for (signal, reason), count in self._outbox.dropped.items()
                ],
                names.FACTS: _numbers(moment.facts),
            }
        )


def _numbers(facts: Mapping[str, Fact]) -> list[Reading]:
    return [(value, {names.FACT: name}) for name, value in facts.items() if not isinstance(value, str)]


def _result(ok: bool) -> str:
    return "ok" if ok else "failed"
