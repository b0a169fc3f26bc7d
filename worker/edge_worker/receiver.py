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
from edge_worker.conversation import Refusal, Reply
from edge_worker.endpoint import HOST, Endpoint
from edge_worker.otlp import CONTENT_TYPE, SIGNALS, Signal, TooLarge
from edge_worker.outbox import Outbox

log = logging.getLogger(__name__)

USE = "use OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, and gzip or no compression"

PORT_FILE = "otlp-port"
"""Below the state folder: tasks that outlive the daemon find the next one at the same port."""

UNZIPPED_MAX = 16 * 1024 * 1024
"""Bytes of a body after decompression."""

LARGE = 1024 * 1024
"""Bytes, decompressed, of a body that is unusual."""

RATE, BURST = 4 * 1024 * 1024, 32 * 1024 * 1024
"""Bytes a second, decompressed, over all tasks."""


class Receiver:
    """What takes the telemetry of tasks; without a listener nothing does."""

    advice = USE

    def __init__(self, listener: socket.socket | None, outbox: Outbox) -> None:
        self._outbox = outbox
        self._allowance = Allowance(RATE, BURST)
        # Decompression and parsing, one body at a time: the event loop goes on, and memory is bounded.
        self._parser = ThreadPoolExecutor(1, thread_name_prefix="otlp")
        self._endpoint = Endpoint(listener, self) if listener else None
        self.url = self._endpoint.url if self._endpoint else None

    async def start(self) -> None:
        """Begin to listen."""
        if self._endpoint is not None:
            await self._endpoint.start()

    def close(self) -> None:
        """Close everything."""
        if self._endpoint is not None:
            self._endpoint.close()
        self._parser.shutdown(wait=False, cancel_futures=True)

    def look(self, request: h11.Request) -> None:
        """Raise Refusal where a request is no OTLP."""
        signal_of(request)
        is_zipped(request)

    def refused(self, request: h11.Request, refusal: Refusal) -> None:
        """Note that telemetry was refused."""
        reasons = {400: "invalid", 413: "too_large", 415: "not_protobuf"}
        with contextlib.suppress(Refusal):  # what was sent elsewhere is of no signal
            self._outbox.drop(signal_of(request), reasons.get(refusal.status, "refused_sender"))

    async def answer(self, request: h11.Request, body: bytes | None) -> Reply:
        """Return the answer to telemetry; raises Refusal."""
        return Reply(await self._take(signal_of(request), body, is_zipped(request)), CONTENT_TYPE)

    async def _take(self, signal: Signal, body: bytes | None, zipped: bool) -> bytes:
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


def is_zipped(request: h11.Request) -> bool:
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
