"""Writes what workers report of their jobs, many at a time, and answers each when it is committed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from edge_otel.api.link import Link
from edge_otel.api.log_files import Writer
from edge_otel.messages import Confirmed, Stale, StateAck
from edge_otel.models.database import DatabaseFailure, passing
from edge_otel.models.reports import Recorded, Report, record_all
from edge_otel.models.session import hasty_session
from edge_otel.state import JobState, Verdict
from edge_otel.telemetry import counters

log = logging.getLogger(__name__)

BATCH = 500
MAX_WAITING = 10_000
"""Reports; a channel is not read while so many wait."""
MAX_LOGS_WAITING = 200
"""Logs to write to their files; beyond that the sweep finds them."""
AFTER_FAILURE = 1.0
"""Seconds to wait when the database is away."""
WHEN_BUSY = 0.05
"""Seconds to wait for a row that somebody else has locked."""

_Waiting = tuple[Link | None, Report]


class Recorder:
    """One loop, with one thread for the database and one for log files."""

    def __init__(self, writer: Writer, wake: Callable[[], None]) -> None:
        self._writer = writer
        self._wake = wake
        """Called when a job is back in the queue, or a worker's slot is free."""
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue(MAX_WAITING)
        self._again: list[_Waiting] = []
        self._database = ThreadPoolExecutor(1, thread_name_prefix="edge-reports")
        self._files = ThreadPoolExecutor(1, thread_name_prefix="edge-log-files")
        self._logs_waiting = 0

    async def put(self, report: Report, link: Link) -> None:
        """Have a report written, and its answer sent to ``link``."""
        await self._waiting.put((link, report))

    def put_unanswered(self, report: Report) -> None:
        """Have a report of this server's own written; when too much waits, the executor's care returns the offer."""
        if not self._waiting.full():
            self._waiting.put_nowait((None, report))

    async def run(self) -> None:
        """Write reports until cancelled."""
        while True:
            batch, self._again = self._again, []
            if not batch:
                batch.append(await self._waiting.get())
            while len(batch) < BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            await self._record(batch)

    async def drained(self) -> None:
        """Return when nothing waits any more."""
        while self._again or not self._waiting.empty():
            await asyncio.sleep(0.01)

    def close(self) -> None:
        """Let the threads end."""
        for threads in (self._database, self._files):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _record(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        try:
            recorded = await loop.run_in_executor(self._database, _write, [report for _, report in batch])
        except DatabaseFailure as failure:
            if passing(failure):
                log.warning("%d reports on jobs wait for the database: %s", len(batch), failure.orig)
                self._again = [*self._again, *batch]
                await asyncio.sleep(AFTER_FAILURE)
            elif len(batch) > 1:
                # One report that the database refuses must not stand in the way of the others.
                for one in batch:
                    await self._record([one])
            else:
                log.exception("A report on job %s cannot be stored.", batch[0][1].job_id)
            return
        for waiting, what in zip(batch, recorded, strict=True):
            if what.verdict is None:
                self._again.append(waiting)
                continue
            self._answer(*waiting, what.verdict)
            link, report = waiting
            if link is not None or what.verdict is not Verdict.STALE:
                counters.reported(
                    report.state, what.verdict, queue=what.queue, carrier=what.carrier, ran=what.ran, why=report.why
                )
            if what.log_to_write:
                self._finalise(what.log_to_write)
        if self._again:
            await asyncio.sleep(WHEN_BUSY)

    def _answer(self, link: Link | None, report: Report, verdict: Verdict) -> None:
        key = (report.job_id, report.claim)
        if report.state is JobState.QUEUED:
            if verdict is Verdict.STORED:
                self._wake()
            return
        if link is not None:
            if verdict is Verdict.STALE:
                link.released(key)
                answer: type[Stale | Confirmed | StateAck] = Stale
            else:
                answer = Confirmed if report.state is JobState.RUNNING else StateAck
            link.send(answer.model_validate({"id": report.job_id, "claim": report.claim}))
        if verdict is Verdict.STALE:
            self._wake()

    def _finalise(self, job_id: str) -> None:
        if self._logs_waiting >= MAX_LOGS_WAITING:
            return
        self._logs_waiting += 1
        loop = asyncio.get_running_loop()
        written = loop.run_in_executor(self._files, self._writer.finalise, job_id)

        def done(future: asyncio.Future[None]) -> None:
            self._logs_waiting -= 1
            if not future.cancelled() and (error := future.exception()) is not None:
                log.warning("The log of job %s waits for the next sweep: %s", job_id, error)

        written.add_done_callback(done)


def _write(reports: list[Report]) -> list[Recorded]:
    with hasty_session() as session:
        return record_all(session, reports, datetime.now(UTC))
