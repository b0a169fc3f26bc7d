"""v2: the channel, one WebSocket for each worker: the upgrade, the first message, and reading until it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from edge_otel.api import refusals
from edge_otel.api.auth import Principal
from edge_otel.api.hub import Hub
from edge_otel.api.link import SENT, Link, counted
from edge_otel.errors import BadInput, EdgeError, TooLarge
from edge_otel.messages import CLOSED, FROM_WORKER, MAX_MESSAGE, Error, FromWorker, Hello, encode
from edge_otel.models.database import DatabaseFailure, explain
from edge_otel.telemetry import counters

log = logging.getLogger(__name__)

router = APIRouter(prefix="/v2")

HELLO_WITHIN = 10.0
"""Seconds from the upgrade to the first message."""
LEFT = (1000, 1001)
"""Close codes of a worker that goes in order."""

_HEARD = counted("received", FromWorker)
_UNKNOWN, _INVALID = (counters.CHANNEL_MESSAGES.labels("received", what) for what in ("unknown", "invalid"))


@router.websocket("/channel")
async def channel(websocket: WebSocket) -> None:
    """Serve one worker for as long as it is connected."""
    hub: Hub = websocket.app.state.hub
    try:
        principal = await hub.authenticate(websocket.headers.get("authorization"))
    except (EdgeError, DatabaseFailure) as error:
        await websocket.send_denial_response(refusals.respond(await _explained(error), websocket))
        return
    await websocket.accept()
    try:
        link = await _welcome(hub, websocket, principal)
    except WebSocketDisconnect:
        return
    except (EdgeError, DatabaseFailure) as error:
        refusal = await _explained(error)
        body = refusals.body(refusal, f"channel by token {principal.token_id}")
        SENT[Error].inc()
        await websocket.send_text(encode(Error(**dict(body))))
        await websocket.close(CLOSED + refusal.status)
        return
    await _serve(hub, link, websocket)


async def _welcome(hub: Hub, websocket: WebSocket, principal: Principal) -> Link:
    try:
        async with asyncio.timeout(HELLO_WITHIN):
            hello = await _next(websocket)
            while hello is None:
                hello = await _next(websocket)
    except TimeoutError:
        raise BadInput(f"No hello came within {HELLO_WITHIN:g} s.") from None
    if not isinstance(hello, Hello):
        raise BadInput("The first message of a channel is hello.")
    return await hub.register(hello, principal)


async def _serve(hub: Hub, link: Link, websocket: WebSocket) -> None:
    reading = asyncio.create_task(_read(hub, link, websocket), name=f"edge-read-{link.name}")
    writing = asyncio.create_task(link.write(websocket), name=f"edge-write-{link.name}")
    overdue = asyncio.create_task(link.overdue(), name=f"edge-close-{link.name}")
    try:
        done, _ = await asyncio.wait({reading, writing, overdue}, return_when=asyncio.FIRST_COMPLETED)
        errors = [error for task in done if (error := task.exception()) is not None]
        for error in errors:
            if not isinstance(error, WebSocketDisconnect):
                log.error("The channel of worker %s failed.", link.name, exc_info=error)
        counters.CHANNEL_DISCONNECTS.labels(_reason(link.closed_with, errors)).inc()
    finally:
        for task in (reading, writing, overdue):
            task.cancel()
        hub.lost(link)
        await asyncio.gather(reading, writing, overdue, return_exceptions=True)


def _reason(closed_with: int | None, errors: Iterable[BaseException]) -> str:
    """Return why a channel has ended; the server's own reason comes first."""
    if closed_with is not None:
        return "refused" if closed_with >= CLOSED else "sent_away"
    for error in errors:
        if not isinstance(error, WebSocketDisconnect):
            return "failed"
        return "left" if error.code in LEFT else "broken"
    return "slow"


async def _read(hub: Hub, link: Link, websocket: WebSocket) -> None:
    while True:
        try:
            message = await _next(websocket)
        except EdgeError as error:
            # One message that is wrong costs nobody the channel.
            link.send(Error(**dict(refusals.body(error, f"message of {link.name}"))))
            continue
        if message is not None:
            await hub.hear(link, message)
        await link.sendable()


async def _next(websocket: WebSocket) -> FromWorker | None:
    """Return the next message, or None for one of an unknown type. Raises EdgeError, or WebSocketDisconnect."""
    received = await websocket.receive()
    if received["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(received.get("code", 1006))
    text = received.get("text")
    if text is None:
        _INVALID.inc()
        raise BadInput("A message is text: JSON in UTF-8.")
    if len(text) > MAX_MESSAGE:
        _INVALID.inc()
        raise TooLarge(f"The message is larger than {MAX_MESSAGE} bytes.")
    try:
        message = FROM_WORKER.read(text)
    except ValidationError as error:
        _INVALID.inc()
        raise refusals.malformed("message", error.errors(include_input=False, include_context=False)) from None
    (_UNKNOWN if message is None else _HEARD[type(message)]).inc()
    return message


async def _explained(error: EdgeError | DatabaseFailure) -> EdgeError:
    return error if isinstance(error, EdgeError) else await asyncio.to_thread(explain, error)
