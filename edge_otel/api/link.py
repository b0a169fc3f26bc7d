"""One worker's open channel, as this server sees it: what was reported, what is wanted, which slots are taken."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, get_args

from prometheus_client import Counter
from starlette.websockets import WebSocket

from edge_otel.api.assign import Seat
from edge_otel.messages import (
    RESTARTING,
    Cancel,
    Changed,
    FromServer,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Message,
    Offer,
    encode,
)
from edge_otel.models import worker_log
from edge_otel.models.fleet import Beat, Stored
from edge_otel.state import IN_MAINTENANCE, STOPPING, TAKES_JOBS, WorkerState, settle
from edge_otel.telemetry import context, counters
from edge_otel.wire import LogLine, WorkerReply, WorkerReport, WorkerSettings

log = logging.getLogger(__name__)

MAX_UNSENT = 1024 * 1024
"""Characters that may wait to be sent; while there are more, nothing is read of the worker."""

SENT_WITHIN = 20.0
"""Seconds for one message; a worker that reads so slowly, or not at all, loses its channel."""

CLOSE_WITHIN = 3.0
"""Seconds for the last messages; who does not read them loses the channel without."""

JobKey = tuple[str, int]
"""Id and claim."""

MAX_TRACED = 16
"""Heartbeats with a recorded span that may wait to be stored: they are stored in one."""


class Traced(NamedTuple):
    """A heartbeat whose span is recorded when it is stored."""

    report: Heartbeat
    parent: context.Carrier
    at: datetime


def counted(direction: str, messages: Any) -> Mapping[type[Message], Counter]:
    """Return what counts the messages of each of these types."""
    kinds: tuple[type[Message], ...] = get_args(get_args(messages)[0])
    return {kind: counters.CHANNEL_MESSAGES.labels(direction, kind.model_fields["type"].default) for kind in kinds}


SENT = counted("sent", FromServer)


class Link:
    """Only the event loop's thread touches it."""

    def __init__(self, connection: str, hello: Hello, team: str | None, reply: WorkerReply) -> None:
        self.connection = connection
        self.name = hello.name
        self.session = str(hello.session)
        self.team = team
        self.report: WorkerReport = hello
        self.seq = 0
        self.told = reply
        """What the worker was told last."""
        self.offered: dict[JobKey, tuple[int, float]] = {}
        """Slots of offers that are not answered yet, and until when they hold them, by the loop's clock."""
        self.held: dict[JobKey, int] = {}
        """Slots of the worker's other jobs."""
        self.declined = False
        """The worker knows of fewer slots than this server: until it has reported again, it is offered nothing."""
        self._trace_id: str | None = None
        self.traced: list[Traced] = []
        self._lines: deque[tuple[str, LogLine]] = deque(maxlen=worker_log.KEPT)
        """Of the worker's log, each with its source: those that are not stored yet."""
        self._unsent: deque[str] = deque()
        self._unsent_size = 0
        self._stirred = asyncio.Event()
        self._sendable = asyncio.Event()
        self._sendable.set()
        self._closing: int | None = None
        self._closed = asyncio.Event()
        self._seat: Seat | None = None
        self._seated = False
        """Whether the seat is as of now: it is asked for often, and changes rarely."""
        self._note(hello)

    def seat(self) -> Seat | None:
        """Return the room for jobs, or None where there is none."""
        if not self._seated:
            self._seat, self._seated = self._new_seat(), True
        return self._seat

    def _new_seat(self) -> Seat | None:
        if self.declined or self._closing is not None or self.told.state not in TAKES_JOBS:
            return None
        if self.report.state not in TAKES_JOBS:
            return None
        capacity = self.told.concurrency or self.report.slots or 0
        free = capacity - sum(self.held.values()) - sum(slots for slots, _ in self.offered.values())
        if free <= 0:
            return None
        queues = None if self.told.queues is None else frozenset(self.told.queues)
        return Seat(self.name, self.connection, self.team, queues, capacity, free)

    def beat(self) -> Beat:
        """Return the latest heartbeat as it is stored, with the lines of log that came since the last one."""
        lines = tuple(self._lines)
        self._lines.clear()
        return Beat(self.connection, self.report, datetime.now(UTC), self._trace_id, lines)

    def not_stored(self, beat: Beat) -> None:
        """Have the lines of a heartbeat that could not be stored go with the next one."""
        self._lines = deque([*beat.lines, *self._lines], maxlen=worker_log.KEPT)

    def hear(self, heartbeat: Heartbeat) -> bool:
        """Take in a heartbeat and answer it from memory; return whether it holds news."""
        before = self.report
        self.seq = heartbeat.seq
        self._note(heartbeat)
        self._lines.extend(heartbeat.logged)
        news = before.state is not heartbeat.state or before.jobs_active != heartbeat.jobs_active
        self.told.state = settle(self.told.state, heartbeat.state)
        held = self.told.state in STOPPING and self.told.maintenance_origin == "admin"
        if self.told.state not in IN_MAINTENANCE and not held:
            self.told.maintenance_comments = self.told.maintenance_origin = None
        self._seated = False
        self.told.last_update = datetime.now(UTC)
        parent = context.valid({"traceparent": heartbeat.traceparent, "tracestate": heartbeat.tracestate})
        if context.sampled(parent) and len(self.traced) < MAX_TRACED:
            self.traced.append(Traced(heartbeat, parent, self.told.last_update))
        self._tell(HeartbeatAck, self.seq)
        return news

    def _note(self, report: Hello | Heartbeat) -> None:
        self.report = report
        self.declined, self._seated = False, False
        self._trace_id = context.trace_id({"traceparent": report.traceparent or ""})
        # An offer that was sent while this report was on its way is not in it.
        self.held = {
            (str(job.id), job.claim): job.slots
            for job in report.jobs or ()
            if (str(job.id), job.claim) not in self.offered
        }

    def heed(self, stored: Stored, seq: int) -> None:
        """Tell the worker of changes in what the database says, which knows its heartbeat ``seq``."""
        state = WorkerState(stored.state)
        wanted = (
            state if seq == self.seq else settle(state, self.report.state),
            stored.queues,
            stored.slots_wanted,
            stored.maintenance_comment,
            stored.maintenance_origin,
        )
        told = self.told
        known = (told.state, told.queues, told.concurrency, told.maintenance_comments, told.maintenance_origin)
        if wanted != known:
            told.state, told.queues, told.concurrency, told.maintenance_comments, told.maintenance_origin = wanted
            self._seated = False
            self._tell(Changed, seq)

    def set_pace(self, settings: WorkerSettings) -> None:
        """Tell the worker another pace."""
        self.told.settings = settings
        self._tell(Changed, self.seq, settings)

    def _tell(self, kind: type[HeartbeatAck] | type[Changed], seq: int, settings: WorkerSettings | None = None) -> None:
        told = self.told
        message = kind(
            seq=seq,
            state=told.state,
            last_update=told.last_update,
            queues=told.queues,
            maintenance_comments=told.maintenance_comments,
            maintenance_origin=told.maintenance_origin,
            concurrency=told.concurrency,
            versions_match=told.versions_match,
            settings=settings,
        )
        self.send(message)

    def offer(self, offer: Offer, until: float) -> None:
        """Offer a job; it holds its slots until it is answered, or ``until`` by the loop's clock."""
        self.offered[str(offer.task_instance_id), offer.claim] = (offer.concurrency_slots, until)
        self._seated = False
        self.send(offer)

    def accepted(self, job: JobKey) -> None:
        """The worker has taken a job: from now on its reports have it."""
        slots, _ = self.offered.pop(job, (0, 0.0))
        self.held.setdefault(job, slots)
        self._seated = False

    def decline(self, job: JobKey) -> None:
        """The worker has no room for a job that was offered."""
        self.released(job)
        self.declined = True

    def cancel(self, cancel: Cancel) -> None:
        """Have the worker stop a job; it holds its slots until the worker reports without it."""
        self.offered.pop((str(cancel.id), cancel.claim), None)
        self._seated = False
        self.send(cancel)

    def released(self, job: JobKey) -> None:
        """A job holds no slots here any more."""
        self.offered.pop(job, None)
        self.held.pop(job, None)
        self._seated = False

    def forget_offers_until(self, now: float) -> None:
        """Free the slots of offers that were never answered; their jobs return to the queue by the executor's care."""
        self.offered = {job: offer for job, offer in self.offered.items() if offer[1] > now}
        self._seated = False

    def send(self, message: Message) -> None:
        """Send a message as soon as the worker reads."""
        if self._closing is not None:
            return
        SENT[type(message)].inc()
        text = encode(message)
        self._unsent.append(text)
        self._unsent_size += len(text)
        if self._unsent_size > MAX_UNSENT:
            self._sendable.clear()
        self._stirred.set()

    @property
    def closed_with(self) -> int | None:
        """The close code, where it was this server that closed."""
        return self._closing

    async def sendable(self) -> None:
        """Return when not too much waits to be sent."""
        await self._sendable.wait()

    def close(self, last: Message, code: int = RESTARTING) -> None:
        """Send a last message and close."""
        self.send(last)
        if self._closing is None:
            self._closing, self._seated = code, False
        self._closed.set()
        self._stirred.set()

    async def overdue(self) -> None:
        """Return when the channel should have been closed by now."""
        await self._closed.wait()
        await asyncio.sleep(CLOSE_WITHIN)

    async def write(self, websocket: WebSocket) -> None:
        """Send what is to be sent until the channel is to be closed."""
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            while self._unsent:
                text = self._unsent.popleft()
                try:
                    async with asyncio.timeout(SENT_WITHIN):
                        await websocket.send_text(text)
                except TimeoutError:
                    log.warning("Worker %s does not read what it is sent: its channel is closed.", self.name)
                    return
                self._unsent_size -= len(text)
                if self._unsent_size <= MAX_UNSENT:
                    self._sendable.set()
            if self._closing is not None:
                await websocket.close(self._closing)
                return
