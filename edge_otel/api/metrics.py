"""Metrics for Prometheus: the fleet as the database has it, and what this process, or all that share a folder, did."""

from __future__ import annotations

import asyncio
import gzip
import hmac
import logging
import math
import time
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from ipaddress import ip_address

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from edge_otel.api.refusals import RESPONSES
from edge_otel.errors import MetricsForbidden
from edge_otel.models import snapshot
from edge_otel.models.database import DatabaseFailure
from edge_otel.models.session import hasty_session
from edge_otel.settings import Settings
from edge_otel.telemetry import counters, fleet

log = logging.getLogger(__name__)

KEPT = 3.0
"""Seconds for which a snapshot, or the failure to get one, serves all who ask."""
WITHIN = 5.0
"""Seconds that a scrape waits for the database; Prometheus itself gives up after 10."""
_PROXIED = ("forwarded", "x-forwarded-", "x-real-ip", "via", "cf-connecting-ip")
"""Beginnings of the names of headers that a proxy adds."""
_OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_END = b"# EOF\n"

router = APIRouter(tags=["Metrics"], responses={403: RESPONSES[403]})


class Fleet:
    """Reads the fleet for scrapes. Its one thread makes those that come at once wait for one read."""

    def __init__(self) -> None:
        # Both of its own: the server's threads may all be waiting for the database.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="edge-metrics")
        self.encoding = ThreadPoolExecutor(1, thread_name_prefix="edge-exposition")
        self._text = ""
        self._read_at = self._served_at = time.monotonic()
        self._tried_at = -math.inf

    async def text(self) -> str:
        """Return the fleet's metrics; where the database does not answer in time, only how long that has been so."""
        reading: Awaitable[str] = asyncio.get_running_loop().run_in_executor(self._thread, self._fresh)
        try:
            text = await asyncio.wait_for(reading, WITHIN)
            # Not where the answer came too late for every scrape.
            self._served_at = self._read_at
        except TimeoutError:
            log.warning("The database does not answer: metrics of the fleet are left out.")
            text = ""
        return text + fleet.text([fleet.age(time.monotonic() - self._served_at)])

    def _fresh(self) -> str:
        if time.monotonic() - self._tried_at >= KEPT:
            try:
                self._read()
            except DatabaseFailure as failure:
                log.warning("The fleet cannot be read for its metrics: %s", failure.orig)
                self._text = ""
            except Exception:
                log.exception("The fleet has no metrics now.")
                self._text = ""
            self._tried_at = time.monotonic()
        return self._text

    def _read(self) -> None:
        began = time.monotonic()
        with hasty_session() as session:
            taken = snapshot.take(session, datetime.now(UTC))
        self._text = fleet.text(fleet.families(taken))
        self._read_at = began

    def close(self) -> None:
        """Let the thread end."""
        for threads in (self._thread, self.encoding):
            threads.shutdown(wait=False, cancel_futures=True)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Metrics for Prometheus, as text or OpenMetrics. By `[edge] metrics_token`; without one, open on this host."""
    settings: Settings = request.app.state.settings
    if not (_authorized(request, settings.metrics_token) if settings.metrics_token else is_direct(request)):
        raise MetricsForbidden
    known: Fleet = request.app.state.fleet
    of_fleet = await known.text()
    with_exemplars = "application/openmetrics-text" in request.headers.get("accept", "")
    compressed = "gzip" in request.headers.get("accept-encoding", "")

    def exposition() -> bytes:
        counted = counters.every()
        if with_exemplars:
            counted_text: bytes = openmetrics.generate_latest(counted)  # type: ignore[no-untyped-call]
            whole = counted_text.removesuffix(_END) + of_fleet.encode() + _END
        else:
            whole = generate_latest(counted) + of_fleet.encode()
        return gzip.compress(whole, 1) if compressed else whole

    headers = {"Vary": "Accept, Accept-Encoding"}
    headers["Content-Type"] = _OPENMETRICS if with_exemplars else CONTENT_TYPE_PLAIN_0_0_4
    if compressed:
        headers["Content-Encoding"] = "gzip"
    text = await asyncio.get_running_loop().run_in_executor(known.encoding, exposition)
    return Response(text, headers=headers)


def is_direct(request: Request) -> bool:
    """Return whether the client is on this host, and not a proxy that speaks for somebody else."""
    if request.client is None or any(name.startswith(_PROXIED) for name in request.headers):
        return False
    try:
        address = ip_address(request.client.host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _authorized(request: Request, token: str) -> bool:
    scheme, _, sent = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(sent.strip().encode("latin-1"), token.encode())
