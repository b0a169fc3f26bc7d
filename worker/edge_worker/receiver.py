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
from functools import cache
from pathlib import Path

import h11

from edge_worker import otlp
from edge_worker.allowance import Allowance
from edge_worker.conversation import HEAD_MAX, USE, Conversation, Refusal
from edge_worker.otlp import Signal, TooLarge
from edge_worker.outbox import Outbox

log = logging.getLogger(__name__)

HOST = "127.0.0.1"

PORT_FILE = "otlp-port"
"""Below the state folder: tasks that outlive the daemon find the next one at the same port."""

UNZIPPED_MAX = 16 * 1024 * 1024
"""Bytes of a body after decompression."""

HELD_MAX = 32 * 1024 * 1024
"""Bytes of all bodies that are being received."""

LARGE = 1024 * 1024
"""Bytes, decompressed, of a body that is unusual."""

CONNECTIONS = 256
"""Open at once; a new one beyond them takes the place of the one that has been idle for longest, or is slow."""

SLOW = 2.0
"""Seconds after which a request that has not come whole gives way."""

RATE, BURST = 4 * 1024 * 1024, 32 * 1024 * 1024
"""Bytes a second, decompressed, over all tasks."""


class Receiver:
    """The endpoint, in the daemon's event loop; without a listener there is none."""

    def __init__(self, listener: socket.socket | None, outbox: Outbox) -> None:
        self._listener = listener
        self._outbox = outbox
        self._allowance = Allowance(RATE, BURST)
        self._held = 0
        self._idle: dict[asyncio.StreamWriter, None] = {}
        self._busy: dict[asyncio.StreamWriter, float] = {}
        """Since when, on the monotonic clock."""
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        # Decompression and parsing, one body at a time: the event loop goes on, and memory is bounded.
        self._parser = ThreadPoolExecutor(1, thread_name_prefix="otlp")
        self.url = f"http://{HOST}:{listener.getsockname()[1]}" if listener else None

    async def start(self) -> None:
        """Begin to listen."""
        if self._listener is not None:
            self._server = await asyncio.start_server(
                self._serve, sock=self._listener, limit=HEAD_MAX, backlog=4 * CONNECTIONS
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
            victim = self._least()
            if victim is None:
                writer.transport.abort()
                return
            self._retire(victim)
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
            self._busy.pop(writer, None)
            self._idle[writer] = None
        else:
            self._idle.pop(writer, None)
            self._busy[writer] = time.monotonic()

    def _least(self) -> asyncio.StreamWriter | None:
        """Return the connection that can be spared best; None where all are at work."""
        if self._idle:
            return next(iter(self._idle))
        slowest = next(iter(self._busy), None)
        return slowest if slowest is not None and self._busy[slowest] + SLOW < time.monotonic() else None

    def _retire(self, writer: asyncio.StreamWriter) -> None:
        self._idle.pop(writer, None)
        self._busy.pop(writer, None)
        self._open.discard(writer)
        writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    def hold(self, size: int) -> bool:
        """Account for ``size`` bytes of a body (negative: given back); return whether they may be kept."""
        if size > 0 and self._held + size > HELD_MAX:
            return False
        self._held += size
        return True

    def refused(self, signal: Signal, refusal: Refusal) -> None:
        """Note that telemetry was refused."""
        reasons = {400: "invalid", 413: "too_large", 415: "not_protobuf"}
        self._outbox.drop(signal, reasons.get(refusal.status, "refused_sender"))

    async def take(self, signal: Signal, body: bytes | None, zipped: bool) -> bytes:
        """Return the answer to a body, None where it could not be held; raises Refusal."""
        if body is None:
            self._outbox.drop(signal, "busy")
            return otlp.partial_success(1, "the worker receives too much at once: dropped")
        if not self._outbox.wanted(signal):
            self._outbox.put(signal, b"")
            return b""
        # A gzip stream ends with the size of what is in it, and is damaged where that is not true.
        size = int.from_bytes(body[-4:], "little") if zipped else len(body)
        if not self._allowance.take(min(size, UNZIPPED_MAX), time.monotonic()):
            self._outbox.drop(signal, "rate_limit")
            return otlp.partial_success(1, f"more than {RATE} bytes a second over all tasks: dropped")
        loop = asyncio.get_running_loop()
        try:
            payload, items = await loop.run_in_executor(self._parser, _parsed, signal, body, zipped)
        except TooLarge as error:
            raise Refusal(413, f"{error}; send smaller batches") from None
        except ValueError as error:
            raise Refusal(400, f"{error}; {USE}") from None
        if not self._outbox.put(signal, payload):
            return otlp.partial_success(items, "the worker's outbox is full: dropped")
        return b""


def _parsed(signal: Signal, body: bytes, zipped: bool) -> tuple[bytes, int]:
    payload = otlp.unzip(body, UNZIPPED_MAX) if zipped else body
    if len(payload) > LARGE:
        return_large_blocks()
    return payload, otlp.count(signal, payload)


@cache
def return_large_blocks() -> None:
    """Have glibc give blocks of some size back to the system: else the daemon stays as large as its largest burst.

    Not before such a burst, for ctypes takes two megabytes itself.
    """
    import ctypes

    m_mmap_threshold = -3
    # Another C library may not have it.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(m_mmap_threshold, 256 * 1024)


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
