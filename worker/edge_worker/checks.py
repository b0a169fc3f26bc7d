"""Health by HTTP on loopback, for probes and Prometheus: /livez, /readyz, /status and /metrics."""

from __future__ import annotations

import json
import re
import socket

import h11

from edge_worker import status
from edge_worker.conversation import Refusal, Reply
from edge_worker.endpoint import HOST
from edge_worker.exposition import CONTENT_TYPE, exposition
from edge_worker.faults import BadSetting
from edge_worker.station import Station

PATHS = ("/livez", "/readyz", "/status", "/metrics")

_OURS = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?")


class Checks:
    """The application of the health port."""

    advice = f"GET {', '.join(PATHS)}"

    def __init__(self, station: Station) -> None:
        self._station = station

    def look(self, request: h11.Request) -> None:
        """Raise Refusal where there is nothing to say."""
        if _path(request) not in PATHS:
            raise Refusal(404, f"there is nothing but {', '.join(PATHS)}")
        if request.method != b"GET":
            raise Refusal(405, "only GET")
        headers = {name: value.decode("latin-1") for name, value in request.headers}
        # A page in somebody's browser on this machine could else read it under a name of its own.
        if b"origin" in headers or not _OURS.fullmatch(headers.get(b"host", HOST)):
            raise Refusal(403, f"this endpoint is not for browsers: call it as {HOST} or localhost")

    def refused(self, request: h11.Request, refusal: Refusal) -> None:
        """Whoever asked has been told."""

    async def answer(self, request: h11.Request, body: bytes | None) -> Reply:
        """Return what was asked for."""
        path = _path(request)
        if path == "/livez":
            return _judged(status.stuck(self._station))
        unwritable = await status.trouble_writing(self._station)
        if path == "/readyz":
            return _judged(status.obstacles(self._station, unwritable))
        found = status.status(self._station, unwritable)
        if path == "/status":
            return Reply(json.dumps(found, indent=2).encode() + b"\n", "application/json")
        return Reply(exposition(found).encode(), CONTENT_TYPE)


def listen(port: int) -> socket.socket:
    """Return a listener for the health port; 0 is any. Raises BadSetting."""
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise BadSetting(f"--health-port: cannot listen at {HOST}:{port}: {error.strerror}") from None


def _path(request: h11.Request) -> str:
    return request.target.partition(b"?")[0].decode("latin-1")


def _judged(reasons: list[str]) -> Reply:
    return Reply("".join(f"{line}\n" for line in reasons or ["ok"]).encode(), status=503 if reasons else 200)
