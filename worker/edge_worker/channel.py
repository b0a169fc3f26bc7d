"""v2: one open WebSocket, on which both sides speak when they have something to say."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Hashable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from edge_otel.messages import (
    CLOSED,
    FROM_SERVER,
    RESTARTING,
    Accept,
    Bye,
    Cancel,
    Changed,
    Confirmed,
    Decline,
    Ended,
    Error,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Offer,
    Stale,
    StateAck,
    Welcome,
    encode,
)
from edge_otel.state import WorkerState
from edge_otel.telemetry import context
from edge_otel.telemetry.context import Carrier
from edge_otel.wire import JobReport, WorkerReply, WorkerReport
from edge_worker import faults
from edge_worker.faults import REFUSALS, Disconnected, Fault, Unreachable
from edge_worker.journal import Ticket
from edge_worker.plan import Answer, read_answer
from edge_worker.polling import TokenFile
from edge_worker.received import Lost, Received, Revoked, Wish
from edge_worker.settings import Settings
from edge_worker.upgrade import dial

log = logging.getLogger(__name__)

ANSWER_WITHIN = 15.0
"""Seconds for any answer."""

BYE_WITHIN = 5.0
"""Seconds from the server's good-bye to its close."""

KEPT = 64
"""Heartbeats whose reported state is remembered, for wishes that refer to them."""

GOING_AWAY = 1001

M = TypeVar("M", bound=BaseModel)

FromServer = Welcome | HeartbeatAck | Changed | Offer | Confirmed | StateAck | Stale | Cancel | Error | Bye


async def open_channel(
    settings: Settings, token: TokenFile, report: WorkerReport, carrier: Carrier, inbox: asyncio.Queue[Received]
) -> tuple[Channel, WorkerReply]:
    """Register by a new channel; return it and the server's answer. What comes unasked goes to ``inbox``.

    Raises Fault. A token that is refused is looked for once more in its file.
    """
    try:
        return await _open(settings, token, report, carrier, inbox)
    except faults.NotAllowed:
        if not token.refresh():
            raise
        return await _open(settings, token, report, carrier, inbox)


async def _open(
    settings: Settings, token: TokenFile, report: WorkerReport, carrier: Carrier, inbox: asyncio.Queue[Received]
) -> tuple[Channel, WorkerReply]:
    socket = await dial(settings, token)
    channel = Channel(socket, inbox, report.state)
    try:
        hello = Hello.model_validate({**report.model_dump(), "name": settings.name, **carrier})
        async with asyncio.timeout(ANSWER_WITHIN):
            await socket.send(encode(hello))
            while not isinstance(answer := channel.heed(await socket.recv(decode=False)), Welcome):
                pass
    except BaseException as failure:
        await socket.close()
        match failure:
            case ConnectionClosed():
                raise channel.loss() from None
            case TimeoutError():
                raise Unreachable("the server does not answer on the channel") from None
        raise
    channel.listen()
    return channel, answer


class Channel:
    """One connection, from the server's welcome to its end. Only the event loop's thread touches it."""

    def __init__(self, socket: ClientConnection, inbox: asyncio.Queue[Received], reported: WorkerState) -> None:
        self.opened = time.monotonic()
        self._socket = socket
        self._inbox = inbox
        self._asked: dict[Hashable, asyncio.Future[Any]] = {}
        self._reported = {0: reported}
        self._seq = 0
        self._error: Error | None = None
        self._bye: Bye | None = None
        self._reader: asyncio.Task[None] | None = None

    def listen(self) -> None:
        """Begin to read, after the welcome."""
        self._reader = asyncio.create_task(self._read(), name="channel")

    async def beat(self, report: WorkerReport, carrier: Carrier) -> WorkerReply:
        """Send a heartbeat and return its answer. Raises Disconnected or Replaced."""
        self._seq += 1
        self._reported[self._seq] = report.state
        if len(self._reported) > KEPT:
            del self._reported[min(self._reported)]
        message = Heartbeat.model_validate({**report.model_dump(), "seq": self._seq, **carrier})
        try:
            reply: HeartbeatAck = await self._ask(("heartbeat", self._seq), message)
        except Unreachable as fault:
            # Whether it is closed or silent: there must be another.
            await self.close()
            loss = self.loss()
            if isinstance(fault, Disconnected) or isinstance(loss, faults.Replaced):
                raise loss from None
            raise Disconnected(str(fault)) from None
        return reply

    async def report(self, ticket: Ticket, state: str, report: JobReport) -> None:
        """Tell a job's state: ``running`` accepts the offer, ``queued`` declines it, and that has no answer."""
        about = {"id": ticket.id, "claim": ticket.claim, **(ticket.span or context.new_root())}
        if state == "running":
            await self._ask(("accept", ticket.id, ticket.claim), Accept.model_validate(about))
        elif state == "queued":
            await self._send(Decline.model_validate({**about, "reason": (report.error or "")[:1024]}))
        else:
            outcome = report.model_dump(exclude={"task_instance_id", "claim"})
            ended = Ended.model_validate({**outcome, **about, "state": state})
            await self._ask(("end", ticket.id, ticket.claim), ended)

    async def close(self) -> None:
        """Close it and wait for its end."""
        await self._socket.close()
        if self._reader is not None:
            await asyncio.wait({self._reader})

    def loss(self) -> Fault:
        """Return why the channel is closed."""
        code, reason = self._socket.close_code, self._socket.close_reason
        error = self._error
        status = code - CLOSED if code is not None else 0
        if 400 <= status < 600:
            meaning = read_answer(status, error.error if error else None)
            detail = error.detail if error else reason or f"the server closed the channel with {code}"
            # Once it was open, registering again tells whether a refusal holds. One who was replaced must not.
            if meaning is Answer.REPLACED or (self._reader is None and meaning in REFUSALS):
                return REFUSALS[meaning](status, error.error if error else "", detail, error.error_id if error else "")
            return Disconnected(detail)
        if self._bye is not None or code in (RESTARTING, GOING_AWAY):
            why = self._bye.reason if self._bye else reason or "it restarts"
            return Disconnected(f"the server said good-bye: {why}", self._bye.reconnect_after if self._bye else 0, True)
        return Disconnected(f"the channel broke (close code {code}{f': {reason}' if reason else ''})")

    def heed(self, text: str | bytes) -> FromServer | None:
        """Do what a message asks for, and return it; None where it is not understood."""
        try:
            message = FROM_SERVER.read(text)
        except ValidationError as error:
            log.warning(
                "a message of the server is malformed: %s", error.errors(include_input=False, include_url=False)
            )
            return None
        match message:
            case HeartbeatAck():
                self._answer(("heartbeat", message.seq), message)
            case Confirmed():
                self._answer(("accept", str(message.id), message.claim), message)
            case StateAck():
                self._answer(("end", str(message.id), message.claim), message)
            case Stale():
                self._stale(message)
            case Cancel():
                self._inbox.put_nowait(Revoked(str(message.id), message.claim, message.reason or "cancelled", True))
            case Offer():
                self._inbox.put_nowait(message)
            case Changed():
                reported = self._reported.get(message.seq, self._reported[min(self._reported)])
                self._inbox.put_nowait(Wish(reported, message))
            case Error():
                self._error = message
                if self._reader is not None:
                    log.warning("the server: %s (%s, error id %s)", message.detail, message.error, message.error_id)
            case Bye():
                self._bye = message
        return message

    def _stale(self, message: Stale) -> None:
        """Answer whoever asked about the job, or else have it stopped."""
        detail = "its claim is stale"
        keys = [(kind, str(message.id), message.claim) for kind in ("accept", "end")]
        asked = [key for key in keys if key in self._asked]
        for key in asked:
            self._answer(key, faults.Stale(409, "StaleClaim", detail))
        if not asked:
            self._inbox.put_nowait(Revoked(str(message.id), message.claim, detail))

    def _answer(self, key: Hashable, answer: Any) -> None:
        future = self._asked.pop(key, None)
        if future is None or future.done():
            return
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as patience:
                while True:
                    self.heed(await self._socket.recv(decode=False))
                    if self._bye is not None and patience.when() is None:
                        patience.reschedule(loop.time() + BYE_WITHIN)
        except (ConnectionClosed, TimeoutError):
            pass
        except Exception:
            log.exception("the channel is closed after a defect")
        await self._socket.close()
        for key in list(self._asked):
            self._answer(key, Disconnected(str(self.loss())))
        self._inbox.put_nowait(Lost())

    async def _send(self, message: BaseModel) -> None:
        try:
            await self._socket.send(encode(message))
        except ConnectionClosed:
            raise Disconnected("the channel is closed") from None

    async def _ask(self, key: Hashable, message: BaseModel) -> Any:
        """Send a message and return its answer. Raises Fault."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[key] = answer
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                await self._send(message)
                return await answer
        except TimeoutError:
            raise Unreachable(f"the server does not answer on the channel within {ANSWER_WITHIN:.0f} s") from None
        finally:
            if self._asked.get(key) is answer:
                del self._asked[key]
