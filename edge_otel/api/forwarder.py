"""Passes the telemetry of workers on to the collector: so many at a time, and none while it is known to be away."""

from __future__ import annotations

import asyncio
import gzip
import logging
import math
import os
import random
import ssl
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple, TypeVar

import httpx
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from edge_otel import __version__
from edge_otel.api.body_limit import decompressed
from edge_otel.api.outage import Outage, limited
from edge_otel.errors import BadInput, CollectorAway, CollectorRefused, NoCollector, NotOtlp, TooBusy
from edge_otel.telemetry import counters
from edge_otel.telemetry.central import Collector
from edge_otel.telemetry.stamp import stamped

log = logging.getLogger(__name__)

Signal = Literal["traces", "metrics", "logs"]
PROTOBUF = "application/x-protobuf"

PLACES, PLACES_PER_WORKER = 32, 4
"""Requests at a time, each with a body in memory; beyond these, workers are told to come again."""
OURSELVES = ""
"""Stands for this server where others are workers."""
THREADS = 2
"""For unpacking, stamping and packing; small, because they share the interpreter with the hub's event loop."""
MAX_UNPACKED = 16 * 1024 * 1024
"""Bytes of one request."""
BODY_WITHIN = 20.0
"""Seconds for a worker's body to come."""
CONNECT_WITHIN, ANSWER_WITHIN, PROBE_WITHIN = 5.0, 30.0, 5.0
"""Seconds. The second is for the whole exchange, and together with the third less than a worker waits."""
REFUSED_WAIT = 10.0
"""Seconds after which a worker may try again what the collector did not take while it takes other things."""
LEAVE_WITHIN = 1.0
"""Seconds for what is under way when this server goes away."""
MAX_ANSWER = 64 * 1024
"""Bytes that are read of a collector's answer."""
_REFUSALS = frozenset({400, 404, 413, 415, 422})
_EMPTY = gzip.compress(b"")
"""An empty request."""

T = TypeVar("T")


class _Answer(NamedTuple):
    status: int
    """0: there is none."""
    retry_after: float | None
    body: bytes
    problem: str
    """What it comes to in words, where it is not settled."""

    @property
    def settled(self) -> bool:
        """Whether the collector has decided: it has this, or never takes it."""
        return httpx.codes.is_success(self.status) or self.status in _REFUSALS


class Forwarder:
    """One per process, for one collector, or for none. All but the work on bodies runs in the server's event loop."""

    def __init__(self, collector: Collector | None) -> None:
        self._collector = collector
        self._transport: httpx.AsyncHTTPTransport | None = None
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="edge-otlp")
        self._held: Counter[str] = Counter()
        """Requests under way, by worker."""
        self._outages: dict[Signal, Outage] = {"traces": Outage(), "metrics": Outage(), "logs": Outage()}
        self._patience: set[asyncio.Timeout] = set()
        self._leaving = False

    async def start(self) -> None:
        """Get ready to send."""
        if self._collector is None:
            return
        try:
            self._transport = await asyncio.get_running_loop().run_in_executor(self._threads, _new_transport)
        except OSError as error:
            log.error("No telemetry can be passed on: the certificates cannot be read: %s", error)  # noqa: TRY400

    def leave(self) -> None:
        """Take no more, and wait only a little for what is under way: its senders still have it."""
        self._leaving = True
        end = asyncio.get_running_loop().time() + LEAVE_WITHIN
        for patience in self._patience:
            patience.reschedule(end)

    async def close(self) -> None:
        """End the connections and threads."""
        self._leaving = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._transport is not None:
            await self._transport.aclose()

    async def forward(
        self, signal: Signal, worker: str, read: Callable[[], Awaitable[bytes]], *, gzipped: bool
    ) -> bytes:
        """Pass a request on in the worker's name, and return the body of the answer to it.

        Raises NoCollector, CollectorAway, TooBusy, NotOtlp, TooLarge, CollectorRefused, and what ``read`` does.
        """
        self._check(signal, worker)
        # From here there is no other task until the place is taken.
        self._held[worker] += 1
        try:
            body = await self._patiently(BODY_WITHIN, read())
            loop = asyncio.get_running_loop()
            size, packed = await loop.run_in_executor(self._threads, _prepared, body, gzipped, worker)
            del body
            answer = await self._try(signal, worker, packed)
        except TimeoutError:
            raise TooBusy(f"The body did not come within {BODY_WITHIN:g} s.", retry_after=_spread(1.0)) from None
        finally:
            self._held[worker] -= 1
            if not self._held[worker]:
                del self._held[worker]
        _raise_unless_taken(signal, answer)
        counters.OTLP_FORWARDED.labels(signal).inc(size)
        return _partial_success(answer.body)

    async def send(self, signal: Signal, packed: bytes) -> bytes:
        """Send a compressed request of this server's own, and return the body of the answer to it.

        Raises NoCollector, CollectorAway, TooBusy, CollectorRefused.
        """
        self._check(signal, OURSELVES)
        self._held[OURSELVES] += 1
        try:
            answer = await self._try(signal, "this server", packed)
        finally:
            self._held[OURSELVES] -= 1
        _raise_unless_taken(signal, answer)
        return answer.body

    def _check(self, signal: Signal, worker: str) -> None:
        """Raise NoCollector, CollectorAway or TooBusy where a request need not even be read."""
        if self._collector is None:
            raise NoCollector
        if self._leaving or self._transport is None:
            raise TooBusy("This API server cannot pass telemetry on: it starts, or goes away.", retry_after=1)
        self._raise_while_away(signal)
        if self._held.total() >= PLACES or self._held[worker] >= PLACES_PER_WORKER:
            raise TooBusy("Too much telemetry is on its way. Send it again a little later.", retry_after=_spread(1.0))

    def _raise_while_away(self, signal: Signal) -> None:
        if (left := self._outages[signal].left(_now())) is not None:
            raise CollectorAway(retry_after=_spread(left))

    async def _try(self, signal: Signal, worker: str, packed: bytes) -> _Answer:
        """Return the collector's answer to this very request. Raises CollectorAway where it has none."""
        outage = self._outages[signal]
        # Others may have come here meanwhile.
        self._raise_while_away(signal)
        if outage.on:
            await self._probe(signal)
            self._raise_while_away(signal)
        answer = await self._exchange(signal, packed, ANSWER_WITHIN)
        if answer.settled:
            return answer
        if self._leaving:
            raise CollectorAway(retry_after=1)
        self._raise_while_away(signal)
        # It may be this payload alone: what one worker sends must not keep the others from sending.
        takes_others = await self._probe(signal)
        self._raise_while_away(signal)
        if takes_others and outage.refused(_now()):
            log.warning("The collector takes %s, but not what %s sent: %s.", signal, worker, answer.problem)
        raise CollectorAway(retry_after=_spread(limited(answer.retry_after, REFUSED_WAIT if takes_others else 1.0)))

    async def _probe(self, signal: Signal) -> bool:
        """Ask the collector with an empty request, unless another does; return whether it is known to take this signal
        now."""
        outage = self._outages[signal]
        if not outage.begin():
            return False
        try:
            answer = await self._exchange(signal, _EMPTY, PROBE_WITHIN)
        finally:
            outage.end()
        if answer.settled:
            if outage.ended():
                log.warning("The collector takes %s again.", signal)
        elif not self._leaving and outage.failed(_now(), answer.retry_after):
            log.warning("The collector takes no %s: %s. Workers keep theirs until it does.", signal, answer.problem)
        return answer.settled

    async def _exchange(self, signal: Signal, packed: bytes, seconds: float) -> _Answer:
        """Return the collector's answer; one with status 0 where there is none."""
        try:
            return await self._patiently(seconds, self._post(signal, packed))
        except TimeoutError:
            return _Answer(0, None, b"", f"no answer within {seconds:g} s")
        except httpx.LocalProtocolError:
            # Its text repeats headers.
            return _Answer(0, None, b"", "the request cannot be sent")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return _Answer(0, None, b"", f"{type(error).__name__} {error}".strip())

    async def _patiently(self, seconds: float, doing: Awaitable[T]) -> T:
        """Return what comes of it. Raises TimeoutError, soon where this server goes away."""
        patience = asyncio.timeout(min(seconds, LEAVE_WITHIN) if self._leaving else seconds)
        self._patience.add(patience)
        try:
            async with patience:
                return await doing
        finally:
            self._patience.discard(patience)

    async def _post(self, signal: Signal, packed: bytes) -> _Answer:
        assert self._collector is not None
        assert self._transport is not None
        headers = {name.encode(): value.encode("latin-1") for name, value in self._collector.headers.items()}
        headers |= {b"content-type": PROTOBUF.encode(), b"content-encoding": b"gzip"}
        headers |= {b"user-agent": f"edge-otel/{__version__}".encode()}
        # The transport alone: a client would log each request, follow redirects and keep cookies.
        request = httpx.Request("POST", f"{self._collector.url}/v1/{signal}", headers=headers, content=packed)
        request.extensions["timeout"] = httpx.Timeout(ANSWER_WITHIN, connect=CONNECT_WITHIN).as_dict()
        response = await self._transport.handle_async_request(request)
        body = b""
        try:
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_ANSWER:
                    break
        finally:
            await response.aclose()
        seconds = response.headers.get("retry-after", "")
        asked = float(seconds) if seconds.isdecimal() else None
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        problem = f"it answers {response.status_code}"
        if response.is_success and body and not _is_otlp(kind, body):
            problem = f"it answers {response.status_code}, but what it says ({kind!r}) is no OTLP, as from a wrong URL"
            return _Answer(0, asked, b"", problem)
        return _Answer(response.status_code, asked, body, problem)


def _raise_unless_taken(signal: Signal, answer: _Answer) -> None:
    if answer.status == 404:
        raise NoCollector(f"The collector of the central side takes no {signal}.")
    if not httpx.codes.is_success(answer.status):
        raise CollectorRefused(reason=f"{answer.status} {answer.body[:200]!r}")


def _new_transport() -> httpx.AsyncHTTPTransport:
    # The same variable that the exporter of this process's own spans heeds.
    authority = os.environ.get("OTEL_EXPORTER_OTLP_CERTIFICATE")
    verify = ssl.create_default_context(cafile=authority) if authority else httpx.create_ssl_context()
    return httpx.AsyncHTTPTransport(verify=verify, trust_env=False)


def _prepared(body: bytes, gzipped: bool, worker: str) -> tuple[int, bytes]:
    """Return the size of the stamped request, and the request compressed."""
    try:
        data = decompressed(body, MAX_UNPACKED) if gzipped else body
    except BadInput as error:
        raise NotOtlp(reason=error.detail) from None
    data = stamped(data, worker)
    return len(data), zlib.compress(data, 1, wbits=zlib.MAX_WBITS | 16)


def _is_otlp(kind: str, body: bytes) -> bool:
    """Return whether a collector can have said this. A login page, say, has taken nothing."""
    if len(body) > MAX_ANSWER:
        return False
    if kind == "application/json":
        # Not what it was asked in, but some collectors do.
        return True
    try:
        ExportTraceServiceResponse.FromString(body)
    except DecodeError:
        return False
    return kind != "text/html"


def _partial_success(answer: bytes) -> bytes:
    """Return the answer to the worker: empty, but for what the collector says of parts that it did not take."""
    try:
        # The answers to the three signals are the same on the wire.
        taken = ExportTraceServiceResponse.FromString(answer)
    except DecodeError:
        return b""
    said = ExportTraceServiceResponse()
    if taken.HasField("partial_success"):
        said.partial_success.CopyFrom(taken.partial_success)
    text: bytes = said.SerializeToString()
    return text


def _now() -> float:
    return asyncio.get_running_loop().time()


def _spread(seconds: float) -> int:
    """Return what a worker is told to wait: not the same for all."""
    return math.ceil(seconds * random.uniform(1.0, 1.5))  # noqa: S311
