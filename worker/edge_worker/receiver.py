"""A loopback OTLP/HTTP endpoint for task processes. It answers at once: what it took is in the outbox's queue.

No task can be slowed, whatever becomes of its telemetry: what is too much is dropped, counted, and answered with
success in part, for an exporter would repeat what was refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h11

from edge_worker import otlp
from edge_worker.allowance import Allowance
from edge_worker.otlp import CONTENT_TYPE, SIGNALS, Signal, TooLarge
from edge_worker.outbox import Outbox

log = logging.getLogger(__name__)

HOST = "127.0.0.1"

PORT_FILE = "otlp-port"
"""Below the state folder: tasks that outlive the daemon find the next one at the same port."""

BODY_MAX, UNZIPPED_MAX = 4 * 1024 * 1024, 16 * 1024 * 1024
"""Bytes of a request's body, as sent and after decompression."""

HELD_MAX = 32 * 1024 * 1024
"""Bytes of all bodies that are being received."""

CONNECTIONS = 256
"""Open at once; a new one beyond them takes the place of the one that has been idle for longest."""

RATE, BURST = 4 * 1024 * 1024, 32 * 1024 * 1024
"""Bytes a second, decompressed, over all tasks."""

IDLE, REQUEST_WITHIN, LINGER = 300.0, 15.0, 2.0
"""Seconds: between requests of a connection, for one request, and for the rest of one that was refused."""

_CHUNK = 64 * 1024
_HEAD_MAX = 16 * 1024
_USE = "use OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, and gzip or no compression"


class Refusal(Exception):
    """A request that is not taken, with its status and the reason in words."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Receiver:
    """The endpoint, in the daemon's event loop; without a listener there is none."""

    def __init__(self, listener: socket.socket | None, outbox: Outbox) -> None:
        self._listener = listener
        self._outbox = outbox
        self._allowance = Allowance(RATE, BURST)
        self._held = 0
        self._idle: dict[asyncio.StreamWriter, None] = {}
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        # Decompression and parsing, one body at a time: the event loop goes on, and memory is bounded.
        self._parser = ThreadPoolExecutor(1, thread_name_prefix="otlp")
        self.url = f"http://{HOST}:{listener.getsockname()[1]}" if listener else None

    async def start(self) -> None:
        """Begin to listen."""
        if self._listener is not None:
            self._server = await asyncio.start_server(
                self._serve, sock=self._listener, limit=_HEAD_MAX, backlog=4 * CONNECTIONS
            )

    def close(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        for writer in self._open:
            writer.transport.abort()
        self._parser.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS:
            if not self._idle:
                writer.transport.abort()
                return
            self._retire(next(iter(self._idle)))
        self._open.add(writer)
        try:
            await Conversation(self, reader, writer).run()
        except (OSError, TimeoutError, h11.ProtocolError):
            pass  # the sender has gone, is too slow, or does not speak HTTP
        except Exception:
            log.exception("outbox: a request of a task has failed")
        finally:
            self._retire(writer)

    def rest(self, writer: asyncio.StreamWriter, idle: bool) -> None:
        """Note that a connection waits for a request, or no longer."""
        if idle:
            self._idle[writer] = None
        else:
            self._idle.pop(writer, None)

    def _retire(self, writer: asyncio.StreamWriter) -> None:
        self._idle.pop(writer, None)
        self._open.discard(writer)
        writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    def hold(self, size: int) -> bool:
        """Account for ``size`` bytes of a body (negative: given back); return whether they may be kept."""
        if size > 0 and self._held + size > HELD_MAX:
            return False
        self._held += size
        return True

    async def take(self, signal: Signal, body: bytes | None, zipped: bool) -> bytes:
        """Return the answer to a body, None where it could not be held; raises Refusal."""
        if body is None:
            self._outbox.drop(signal, "busy")
            return otlp.partial_success(1, "the worker receives too much at once: dropped")
        if not self._outbox.wanted(signal):
            self._outbox.put(signal, b"")
            return b""
        loop = asyncio.get_running_loop()
        try:
            payload, items = await loop.run_in_executor(self._parser, _parsed, signal, body, zipped)
        except TooLarge as error:
            raise Refusal(413, f"{error}; send smaller batches") from None
        except ValueError as error:
            raise Refusal(400, f"{error}; {_USE}") from None
        if not self._allowance.take(len(payload), time.monotonic()):
            self._outbox.drop(signal, "rate_limit")
            return otlp.partial_success(items, f"more than {RATE} bytes a second over all tasks: dropped")
        if not self._outbox.put(signal, payload):
            return otlp.partial_success(items, "the worker's outbox is full: dropped")
        return b""


def _parsed(signal: Signal, body: bytes, zipped: bool) -> tuple[bytes, int]:
    payload = otlp.unzip(body, UNZIPPED_MAX) if zipped else body
    return payload, otlp.count(signal, payload)


class Conversation:
    """One connection."""

    def __init__(self, receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._receiver = receiver
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_MAX)

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
        try:
            event = await self._event()
            if not isinstance(event, h11.Request):
                return False
            signal, zipped = look(event)
            body = await self._body(event)
            try:
                content = await self._receiver.take(signal, body, zipped)
            finally:
                self._receiver.hold(-len(body or b""))
            self._reply(200, CONTENT_TYPE, content)
        except Refusal as refusal:
            self._reply(refusal.status, "text/plain", str(refusal).encode())
        except h11.RemoteProtocolError as error:
            if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                raise
            self._reply(error.error_status_hint, "text/plain", f"{error}; {_USE}".encode())
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


def look(request: h11.Request) -> tuple[Signal, bool]:
    """Return the signal of a request and whether its body is gzip; raises Refusal."""
    headers = {name: value.decode("latin-1") for name, value in request.headers}
    if b"origin" in headers:
        raise Refusal(403, "this endpoint is not for browsers")
    if request.method == b"PRI":
        raise Refusal(415, f"gRPC is not spoken here: {_USE}")
    path = request.target.partition(b"?")[0].decode("latin-1")
    signal = next((signal for signal in SIGNALS if path == f"/v1/{signal}"), None)
    if signal is None:
        raise Refusal(404, "there is nothing but /v1/traces, /v1/metrics and /v1/logs")
    if request.method != b"POST":
        raise Refusal(405, "only POST")
    kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
    if kind != CONTENT_TYPE:
        raise Refusal(415, f"the content type is {kind[:60] or 'missing'}: {_USE}")
    encoding = headers.get(b"content-encoding", "identity").strip().lower()
    if encoding not in ("gzip", "identity", "none"):
        raise Refusal(415, f"the content encoding is {encoding[:60]}: {_USE}")
    return signal, encoding == "gzip"


def listen(state_dir: Path) -> socket.socket | None:
    """Return a listener at the port of the last daemon where possible; None where there can be none."""
    file = state_dir / PORT_FILE
    try:
        before = int(file.read_text())
    except (OSError, ValueError):
        before = 0
    for port in (before, 0):
        listener = socket.socket()
        try:
            if os.name == "posix":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((HOST, port))
        except (OSError, OverflowError) as error:
            listener.close()
            log.warning("outbox: cannot listen at %s:%d: %s", HOST, port, error)
            continue
        if port == 0:
            try:
                file.write_text(str(listener.getsockname()[1]))
            except OSError as error:
                log.warning("outbox: cannot remember its port: %s", error)
        return listener
    log.error("outbox: no port for the telemetry of tasks: they run without")
    return None
