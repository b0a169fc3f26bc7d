"""One connection of a client on this machine: HTTP/1.1 by h11, bounded in bytes and in time."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Protocol

import h11

BODY_MAX = 4 * 1024 * 1024
"""Bytes of a request's body, as sent."""

HEAD_MAX = 16 * 1024
"""Bytes of its headers."""

IDLE, REQUEST_WITHIN, LINGER = 300.0, 15.0, 2.0
"""Seconds: between requests of a connection, for one request, and for the rest of one that was refused."""

_CHUNK = 64 * 1024


class Refusal(Exception):
    """A request that is not taken, with its status and the reason in words."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Reply:
    """An answer; any status but 200 closes the connection."""

    content: bytes
    kind: str = "text/plain; charset=utf-8"
    status: int = 200


class Application(Protocol):
    """What is talked with."""

    advice: str
    """What to tell those who do not speak HTTP."""

    def look(self, request: h11.Request) -> None:
        """Raise Refusal where a request cannot be answered, before its body."""

    async def answer(self, request: h11.Request, body: bytes | None) -> Reply:
        """Return the answer; the body is None where it could not be held. Raises Refusal."""

    def refused(self, request: h11.Request, refusal: Refusal) -> None:
        """Note that a request was refused."""


class Room(Protocol):
    """What a conversation needs of the endpoint."""

    def rest(self, writer: asyncio.StreamWriter, idle: bool) -> None:
        """Note that a connection waits for a request, or no longer."""

    def hold(self, size: int) -> bool:
        """Account for ``size`` bytes of a body (negative: given back); return whether they may be kept."""


class Conversation:
    """One connection."""

    def __init__(
        self, application: Application, room: Room, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._application = application
        self._room = room
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX)

    async def run(self) -> None:
        """Answer requests until the connection ends; raises what ended it."""
        while True:
            self._room.rest(self._writer, True)
            async with asyncio.timeout(IDLE):
                # The first byte ends the idleness, and the time for the request begins.
                if self._http.trailing_data[0] == b"" and not await self._more():
                    return
            self._room.rest(self._writer, False)
            async with asyncio.timeout(REQUEST_WITHIN):
                if not await self._answer():
                    break
            self._http.start_next_cycle()
        # Without this the sender may see a reset instead of the answer.
        self._writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while await self._reader.read(_CHUNK):
                    pass

    async def _more(self) -> bool:
        data = await self._reader.read(_CHUNK)
        self._http.receive_data(data)
        return bool(data)

    async def _event(self) -> h11.Event | type[h11.PAUSED]:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                self._writer.write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            await self._more()
        return event  # type: ignore[return-value]

    async def _answer(self) -> bool:
        """Answer one request; return whether another may follow."""
        request: h11.Request | None = None
        try:
            event = await self._event()
            if not isinstance(event, h11.Request):
                return False
            request = event
            self._application.look(request)
            body = await self._body(request)
            try:
                self._reply(await self._application.answer(request, body))
            finally:
                self._room.hold(-len(body or b""))
        except Refusal as refusal:
            if request is not None:
                self._application.refused(request, refusal)
            self._reply(Reply(str(refusal).encode(), status=refusal.status))
        except h11.RemoteProtocolError as error:
            if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                raise
            text = f"{error}; {self._application.advice}"
            self._reply(Reply(text.encode(), status=error.error_status_hint))
        await self._writer.drain()
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _body(self, request: h11.Request) -> bytes | None:
        """Return the body, None where all bodies together are too large; raises Refusal."""
        declared = next((value for name, value in request.headers if name == b"content-length"), b"0")
        if int(declared) > BODY_MAX:
            raise Refusal(413, f"a body of more than {BODY_MAX} bytes; send smaller batches")
        parts: list[bytes] | None = []
        size = held = 0
        complete = False
        try:
            while isinstance(event := await self._event(), h11.Data):
                size += len(event.data)
                if size > BODY_MAX:
                    raise Refusal(413, f"a body of more than {BODY_MAX} bytes; send smaller batches")
                if parts is not None and self._room.hold(len(event.data)):
                    parts.append(bytes(event.data))
                    held += len(event.data)
                else:
                    parts = None
            complete = parts is not None
        finally:
            if not complete:
                self._room.hold(-held)
        return None if parts is None else b"".join(parts)

    def _reply(self, reply: Reply) -> None:
        headers = [("Content-Type", reply.kind), ("Content-Length", str(len(reply.content)))]
        if reply.status != 200:
            headers.append(("Connection", "close"))
        for event in (
            h11.Response(status_code=reply.status, headers=headers),
            h11.Data(data=reply.content),
            h11.EndOfMessage(),
        ):
            self._writer.write(self._http.send(event) or b"")
