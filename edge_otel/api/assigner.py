"""Gives queued jobs to the workers that are connected here: one claim for all of them at each wake."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from edge_otel.api.assign import Seat
from edge_otel.api.link import Link
from edge_otel.api.offers import not_offered, offer_of
from edge_otel.messages import Offer
from edge_otel.models.assignment import Batch, Claimed, claim_batch
from edge_otel.models.database import DatabaseFailure
from edge_otel.models.reports import Report
from edge_otel.models.session import hasty_session
from edge_otel.settings import Settings
from edge_otel.state import JobState
from edge_otel.telemetry import central_spans, counters
from edge_otel.telemetry.spans import Recorder

log = logging.getLogger(__name__)

GATHER = 0.02
"""Seconds between claims: what comes in between is claimed together."""
SAFETY_INTERVAL = 5.0
"""Seconds between looks where the database tells of new jobs: for those that it could not tell of."""
AFTER_FAILURE = 1.0


class Assigner:
    """One loop with one thread."""

    def __init__(
        self, links: Mapping[str, Link], settings: Settings, spans: Recorder, report: Callable[[Report], None]
    ) -> None:
        self._links = links
        self._settings = settings
        self._spans = spans
        self._report = report
        self._wake = asyncio.Event()
        self._database = ThreadPoolExecutor(1, thread_name_prefix="edge-assign")
        self.told = False
        """Whether the database tells of new jobs."""

    def wake(self) -> None:
        """There may be a job, or a slot for one."""
        self._wake.set()

    async def run(self) -> None:
        """Assign jobs until cancelled."""
        while True:
            interval = SAFETY_INTERVAL if self.told else self._settings.queue_look_interval
            try:
                async with asyncio.timeout(interval):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            seats = [seat for link in self._links.values() if (seat := link.seat()) is not None]
            if seats:
                await self._assign(seats)
                await asyncio.sleep(GATHER)

    async def _assign(self, seats: list[Seat]) -> None:
        loop = asyncio.get_running_loop()
        patience = self._settings.offer_timeout
        try:
            batch, now = await loop.run_in_executor(self._database, _claim, seats, timedelta(seconds=patience))
        except DatabaseFailure as failure:
            log.warning("No jobs can be assigned now: %s", failure.orig)
            await asyncio.sleep(AFTER_FAILURE)
            self.wake()
            return
        connections = {seat.worker: seat.connection for seat in seats} if batch.claimed else {}
        # Twice: whoever accepts late still finds its slots taken.
        until = loop.time() + 2 * patience
        for worker, job in batch.claimed:
            try:
                offer = offer_of(job, Offer)
            except ValueError as error:
                outcome = not_offered(error)
                log.error("Job %s: %s", job.id, outcome.error)  # noqa: TRY400
                self._report(Report(worker, job.id, job.claim, JobState.FAILED, outcome))
                continue
            link = self._links.get(worker)
            room = link.seat() if link is not None and link.connection == connections[worker] else None
            if link is None or room is None or room.free < job.slots:
                self._report(Report(worker, job.id, job.claim, JobState.QUEUED, why="no_room"))
            else:
                link.offer(offer, until)
                counters.assigned(job.queue, job.carrier, job.queued_at, now)
        # Not in the event loop: there may be hundreds.
        self._database.submit(self._record, batch.claimed, now)
        if batch.more:
            self.wake()

    def _record(self, claimed: Iterable[tuple[str, Claimed]], now: datetime) -> None:
        for worker, job in claimed:
            self._spans.record(central_spans.queued(job, worker, job.claim, job.queued_at, now))

    def close(self) -> None:
        """Let the thread end."""
        self._database.shutdown(wait=False, cancel_futures=True)


def _claim(seats: list[Seat], offer_timeout: timedelta) -> tuple[Batch, datetime]:
    with hasty_session() as session:
        now = datetime.now(UTC)
        return claim_batch(session, seats, now=now, offer_timeout=offer_timeout), now
