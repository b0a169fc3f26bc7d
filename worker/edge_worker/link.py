"""The wire as the loops know it: the channel where that works, else v1; logs always by HTTP."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from edge_otel.telemetry.context import Carrier
from edge_otel.wire import FetchRequest, JobOffer, JobReport, WorkerReply, WorkerReport
from edge_worker import plan
from edge_worker.faults import Disconnected, NoChannel, Refused, Replaced, Unreachable
from edge_worker.journal import Ticket
from edge_worker.plan import Miss, Route
from edge_worker.polling import Polling, TokenFile
from edge_worker.received import Received
from edge_worker.settings import Settings
from edge_worker.shipping import Piece

if TYPE_CHECKING:
    from edge_worker.channel import Channel

log = logging.getLogger(__name__)

CHANNEL, POLLING = "channel", "polling"


class Link:
    """Both transports. Every method raises Fault."""

    def __init__(self, settings: Settings, token: TokenFile, polling: Polling) -> None:
        self._settings = settings
        self._token = token
        self._polling = polling
        self._route = Route(settings.transport, settings.channel_retry)
        self._inbox: asyncio.Queue[Received] = asyncio.Queue()
        self._channel: Channel | None = None
        self._replaced = False
        self.using: str | None = None
        """The transport by which this worker is registered."""
        self._usable = asyncio.Event()
        """Jobs can be reported."""
        if settings.transport == POLLING:
            self._usable.set()

    async def register(self, report: WorkerReport, carrier: Carrier) -> WorkerReply:
        """Announce this daemon by the transport whose turn it is."""
        if self._channel is not None:
            await self._channel.close()
        self._leave()
        return await self._reach(report, carrier, self._polling.register)

    async def beat(self, report: WorkerReport, carrier: Carrier) -> WorkerReply:
        """Send a heartbeat; while v1 is polled, try the channel when that is due. Raises Disconnected."""
        if self._channel is None:
            return await self._reach(report, carrier, self._polling.beat)
        try:
            return await self._channel.beat(report, carrier)
        except Replaced:
            self._step_aside()
            raise
        except Disconnected as loss:
            now = time.monotonic()
            lived = now - self._channel.opened
            self._route = plan.closed(self._route, lived, loss.orderly, now, random.random())  # noqa: S311
            self._leave()
            raise self._paced(loss) from None

    async def fetch(self, request: FetchRequest) -> JobOffer | None:
        """Ask for a job by v1."""
        return await self._polling.fetch(request)

    async def receive(self) -> Received:
        """Return the next thing that the server has said unasked."""
        return await self._inbox.get()

    async def report(self, ticket: Ticket, state: str, report: JobReport) -> None:
        """Tell a job's state as soon as there is a transport; ``queued`` declines the offer, now or never."""
        if state == "queued" and not self._usable.is_set():
            raise Unreachable("the server is not connected")
        await self._usable.wait()
        await (self._channel or self._polling).report(ticket, state, report)

    async def append_log(self, ticket: Ticket, piece: Piece) -> tuple[int, int]:
        """Send log bytes; return the server's cursor and the HTTP status."""
        return await self._polling.append_log(ticket, piece)

    async def log_cursor(self, ticket: Ticket) -> int:
        """Return how many bytes of the job's log the server has."""
        return await self._polling.log_cursor(ticket)

    async def renew_token(self, ticket: Ticket) -> str:
        """Return a new token for the Execution API, for a task that runs here."""
        return await self._polling.renew_token(ticket)

    async def close(self) -> None:
        """Close all connections."""
        if self._channel is not None:
            await self._channel.close()
        self._polling.close()

    async def _reach(
        self, report: WorkerReport, carrier: Carrier, poll: Callable[[WorkerReport, Carrier], Awaitable[WorkerReply]]
    ) -> WorkerReply:
        if plan.tries_channel(self._route, time.monotonic()):
            try:
                return await self._open(report, carrier)
            except Replaced:
                self._step_aside()
                raise
            except (Unreachable, Refused) as fault:
                if isinstance(fault, Refused) and self.using is None:
                    # As with a wider version: what runs here may still be reported.
                    self._usable.set()
                    raise
                self._route = plan.missed(self._route, _miss(fault), time.monotonic(), random.random())  # noqa: S311
                if plan.tries_channel(self._route, time.monotonic()):
                    raise self._paced(fault) if isinstance(fault, Disconnected) else fault from None
                log.info("no channel (%s); asking by HTTP", fault)
        try:
            reply = await poll(report, carrier)
        except Unreachable:
            if self.using is None:
                self._route = plan.unanswered(self._route)
            raise
        self.using = POLLING
        self._usable.set()
        return reply

    async def _open(self, report: WorkerReport, carrier: Carrier) -> WorkerReply:
        # Not before it is wanted: polling does without.
        from edge_worker.channel import open_channel

        # What an earlier channel brought does not count any more: the server begins anew.
        while not self._inbox.empty():
            self._inbox.get_nowait()
        self._channel, reply = await open_channel(self._settings, self._token, report, carrier, self._inbox)
        self._route = plan.opened(self._route)
        if self.using == POLLING:
            log.info("the channel is open")
        self.using = CHANNEL
        self._usable.set()
        return reply

    def _leave(self) -> None:
        self._channel = self.using = None
        if self._route.transport != POLLING:
            self._usable.clear()

    def _step_aside(self) -> None:
        """Report what is left by v1: a channel would replace the daemon that has replaced this one."""
        self._channel = self.using = None
        self._usable.set()

    def _paced(self, loss: Disconnected) -> Disconnected:
        """Return the loss with the pause to make."""
        draw = random.random()  # noqa: S311 - jitter, not a secret
        pause = plan.returning(loss.retry_after or 0, draw) if loss.orderly else plan.backoff(self._route.flaps, draw)
        return Disconnected(str(loss), pause, loss.orderly)


def _miss(fault: Unreachable | Refused) -> Miss:
    if isinstance(fault, NoChannel):
        return Miss.IMPOSSIBLE
    return Miss.PACED if isinstance(fault, Unreachable) and fault.retry_after is not None else Miss.BROKEN
