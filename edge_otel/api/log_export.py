"""Sends the lines of task logs to the collector, as OpenTelemetry log records: from the store, in the background."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from edge_otel.api.forwarder import Forwarder
from edge_otel.errors import CollectorAway, CollectorRefused, NoCollector, TooBusy
from edge_otel.models import log_sinks
from edge_otel.models.database import DatabaseFailure
from edge_otel.models.session import database_now, hasty_session
from edge_otel.telemetry import counters
from edge_otel.telemetry.log_records import LONGEST, Line, Place, Source, request, split

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between looks while there is nothing to send."""
AWAY = 60.0
"""Seconds until a collector that takes no logs is asked again."""
LOGS, LOG_BYTES, REQUEST_BYTES = 64, LONGEST, 4 * LONGEST
"""Most of one request: logs, bytes of each and of all. A line must fit, or its end would never be seen."""
LEASE = timedelta(minutes=2)
"""More than a request takes, with its probe. If this server dies, its logs wait so long for another."""
REST = 2.0
"""How long the thread rests after a request, as a multiple of the time for which it worked: it shares the interpreter
with the hub's event loop."""
HALVINGS = 40
"""How often requests of a round that the collector refuses are halved, to find the lines that it does take."""

NOTE_AGAIN = 1.0
"""Seconds until what the database did not take is noted again."""

T = TypeVar("T")
Batch = list[tuple[Source, list[Line]]]


class _Part(NamedTuple):
    """What one log contributes to a request."""

    export: log_sinks.Export
    places: dict[int, tuple[int, bool]]
    seen: log_sinks.Stored | None
    batch: Batch

    @property
    def served(self) -> bool:
        """Whether it was looked at."""
        return bool(self.batch) or self.seen is not None


class Exporter:
    """One per process. All but reading and packing runs in the server's event loop."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="edge-log-export")
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._worked = 0.0
        self._halvings = HALVINGS

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="edge-log-export")

    async def stop(self) -> None:
        """End after the request that is under way, so that what was sent is noted."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            self._worked = 0.0
            try:
                pause = 0.01 if await self._round() else INTERVAL
            except (CollectorAway, TooBusy) as away:
                pause = float(away.facts["retry_after"])
            except NoCollector:
                pause = AWAY
            except Exception:
                log.warning(
                    "Lines of task logs were not sent to the collector; the next try comes soon.", exc_info=True
                )
                pause = 10 * INTERVAL
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), max(pause, REST * self._worked))

    async def _round(self) -> bool:
        """Send what is due, as far as one request goes; return whether there was any."""
        self._halvings = HALVINGS
        parts = await self._in_thread(_read)
        batch = [piece for part in parts for piece in part.batch]
        try:
            if batch:
                await self._send(batch)
        except BaseException:
            # As it was: this server or another has them at once when the collector is back.
            await self._in_thread(self._note, [part._replace(places=part.export.places) for part in parts])
            raise
        await self._in_thread(self._note, parts)
        await self._in_thread(_rest, parts)
        return bool(parts)

    async def _send(self, batch: Batch) -> None:
        try:
            answer = await self._forwarder.send("logs", await self._in_thread(_packed, batch))
        except CollectorRefused as refused:
            lines = _count(batch)
            if lines == 1 or self._halvings == 0:
                counters.LOG_RECORDS.labels("refused").inc(lines)
                log.warning("The collector refuses %d lines of task logs: %s", lines, refused.facts["reason"])
                return
            self._halvings -= 1
            for half in _halves(batch, lines // 2):
                await self._send(half)
            return
        refusals = _rejected(answer)
        counters.LOG_RECORDS.labels("sent").inc(_count(batch) - refusals)
        if refusals:
            counters.LOG_RECORDS.labels("refused").inc(refusals)
            log.warning("The collector has dropped %d lines of task logs.", refusals)

    def _note(self, parts: list[_Part]) -> None:
        """Note what was sent. That must not fail, or lines would be sent again: it is tried until the database answers,
        unless this server stops. If another had the logs meanwhile, nothing is noted."""
        while parts:
            try:
                with hasty_session() as session:
                    now = database_now(session)
                    for number, part in enumerate(parts):
                        at = now + timedelta(microseconds=number)
                        log_sinks.note_exported(session, part.export, part.places, at)
            except DatabaseFailure as failure:
                if self._stopping.is_set():
                    raise
                log.warning("What was sent of task logs cannot be noted; the next try comes soon: %s", failure.orig)
                time.sleep(NOTE_AGAIN)
            else:
                return

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        def timed() -> T:
            began = time.thread_time()
            try:
                return work(*args)
            finally:
                self._worked += time.thread_time() - began

        return await asyncio.get_running_loop().run_in_executor(self._thread, timed)


def _read() -> list[_Part]:
    with hasty_session() as session:
        now = database_now(session)
        exports = log_sinks.claim_exports(session, now, now + LEASE, LOGS)
    parts, left = [], REQUEST_BYTES
    for export in exports:
        part, read = _read_log(export, left)
        parts.append(part)
        left -= read
    # Those that found no room are first next time.
    return sorted(parts, key=lambda part: part.served)


def _rest(parts: list[_Part]) -> None:
    for part in parts:
        if part.seen is not None:
            with hasty_session() as session:
                log_sinks.rest_export(session, part.export.job_id, part.places, part.seen)


def _read_log(export: log_sinks.Export, left: int) -> tuple[_Part, int]:
    """Return the next lines of a log, and how many bytes were read for them; none where fewer than LOG_BYTES are left
    for the request."""
    places, read = dict(export.places), 0
    batch: Batch = []
    if left < LOG_BYTES:
        return _Part(export, places, None, batch), 0
    with hasty_session() as session:
        stored = log_sinks.stored(session, export.job_id)
        whole = True
        for claim, length in stored.lengths.items():
            place = Place(*places.get(claim, (0, False)))
            data = b""
            if place.offset < length and read < LOG_BYTES:
                data = log_sinks.bytes_from(session, export.job_id, claim, place.offset, LOG_BYTES)
            read += len(data)
            end = place.offset + len(data)
            lines, place = split(data, place, over=stored.over and end >= length)
            whole &= end >= length
            places[claim] = (place.offset, place.cut)
            if lines:
                worker = export.about["workers"].get(str(claim))
                batch.append((Source(export.known_as, claim, worker or "", export.about, export.carrier), lines))
        if not log_sinks.holds(session, export):
            # Another try may have begun under its id, and what was read be that one's.
            return _Part(export, export.places, None, []), read
    return _Part(export, places, stored if whole else None, batch), read


def _packed(batch: Batch) -> bytes:
    return zlib.compress(request(batch, datetime.now(UTC)).SerializeToString(), 1, wbits=zlib.MAX_WBITS | 16)


def _count(batch: Batch) -> int:
    return sum(len(lines) for _, lines in batch)


def _halves(batch: Batch, first: int) -> tuple[Batch, Batch]:
    """Return the first lines of a batch, so many, and the others."""
    one: Batch = []
    other: Batch = []
    for source, lines in batch:
        for half, some in ((one, lines[:first]), (other, lines[first:])):
            if some:
                half.append((source, some))
        first = max(0, first - len(lines))
    return one, other


def _rejected(answer: bytes) -> int:
    try:
        return int(ExportLogsServiceResponse.FromString(answer).partial_success.rejected_log_records)
    except DecodeError:
        return 0
