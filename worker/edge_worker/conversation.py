"""One connection of a task's exporter: HTTP/1.1 by h11, bounded in bytes and in time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

import h11

from edge_worker.otlp import CONTENT_TYPE, SIGNALS, Signal

BODY_MAX = 4 * 1024 * 1024
"""Bytes of a request's body, as sent."""

HEAD_MAX = 16 * 1024
"""Bytes of its headers."""

IDLE, REQUEST_WITHIN, LINGER = 300.0, 15.0, 2.0
"""Seconds: between requests of a connection, for one request, and for the rest of one that was refused."""

USE = "use OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, and gzip or no compression"

_CHUNK = 64 * 1024


class Refusal(Exception):
    """A request that is not taken, with its status and the reason in words."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Taker(Protocol):
    """What a conversation needs of the receiver."""

    def rest(self, writer: asyncio.StreamWriter, idle: bool) -> None:
        """Note that a connection waits for a request, or no longer."""

    def hold(self, size: int) -> bool:
        """Account for ``size`` bytes of a body (negative: given back); return whether they may be kept."""

    def refused(self, signal: Signal, refusal: Refusal) -> None:
        """Note that telemetry was refused."""

    async def take(self, signal: Signal, body: bytes | None, zipped: bool) -> bytes:
        """Return the answer to a body, None where it could not be held; raises Refusal."""


class Conversation:
    """One connection."""

    def __init__(self, receiver: Taker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._receiver = receiver
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX)

    async def run(self) -> None:
        """Answer requests until the connection ends; raises what ended it."""
        while True:
            self._receiver.rest(self._writer, True)
            async with asyncio.timeout(IDLE):
                # The first byte ends the idleness, and the time for the request begins.
                if self._http.trailing_data[0] == b"" and not await self._more():
                    return
            self._receiver.rest(self._writer, False)
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
        signal = None
        try:
            event = await self._event()
            if not isinstance(event, h11.Request):
                return False
            signal = signal_of(event)
            zipped = look(event)
            body = await self._body(event)
            try:
                content = await self._receiver.take(signal, body, zipped)
            finally:
                self._receiver.hold(-len(body or b""))
            self._reply(200, CONTENT_TYPE, content)
        except Refusal as refusal:
            if signal is not None:
                self._receiver.refused(signal, refusal)
            self._reply(refusal.status, "text/plain", str(refusal).encode())
        except h11.RemoteProtocolError as error:
            if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                raise
            self._reply(error.error_status_hint, "text/plain", f"{error}; {USE}".encode())
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
                if parts is not None and self._receiver.hold(len(event.data)):
                    parts.append(bytes(event.data))
                    held += len(event.data)
                else:
                    parts = None
            complete = parts is not None
        finally:
            if not complete:
                self._receiver.hold(-held)
        return None if parts is None else b"".join(parts)

    def _reply(self, status: int, kind: str, content: bytes) -> None:
        headers = [("Content-Type", kind), ("Content-Length", str(len(content)))]
        if status != 200:
            headers.append(("Connection", "close"))
        for event in (
            h11.Response(status_code=status, headers=headers),
            h11.Data(data=content),
            h11.EndOfMessage(),
        ):
            self._writer.write(self._http.send(event) or b"")


def signal_of(request: h11.Request) -> Signal:
    """Return the signal that a request sends; raises Refusal where it sends none."""
    if request.method == b"PRI":
        raise Refusal(415, f"gRPC is not spoken here: {USE}")
    path = request.target.partition(b"?")[0].decode("latin-1")
    signal = next((signal for signal in SIGNALS if path == f"/v1/{signal}"), None)
    if signal is None:
        raise Refusal(404, "there is nothing but /v1/traces, /v1/metrics and /v1/logs")
    if request.method != b"POST":
        raise Refusal(405, "only POST")
    return signal


def look(request: h11.Request) -> bool:
    """Return whether the body is gzip; raises Refusal where it cannot be OTLP."""
    headers = {name: value.decode("latin-1") for name, value in request.headers}
    if b"origin" in headers:
        raise Refusal(403, "this endpoint is not for browsers")
    kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
    if kind != CONTENT_TYPE:
        raise Refusal(415, f"the content type is {kind[:60] or 'missing'}: {USE}")
    encoding = headers.get(b"content-encoding", "identity").strip().lower()
    if encoding not in ("gzip", "identity", "none"):
        raise Refusal(415, f"the content encoding is {encoding[:60]}: {USE}")
    return encoding == "gzip"
