"""Load over HTTP: threads with one kept-alive connection each, and the next call as soon as the last is answered."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import jwt

from tests.bench.spread import percentile

V1 = "/edge_worker/v1/"
TIMEOUT = 60.0
WARM = 3.0
"""Seconds of load before what is measured."""


class Calls:
    """One connection to v1. ``authorize`` returns the ``Authorization`` header for a path below it."""

    def __init__(self, url: str, authorize: Callable[[str], str]) -> None:
        self._connection = HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT)
        self._authorize = authorize

    def call(self, method: str, path: str, body: Any) -> Any:
        """Return the JSON of the answer.

        :raises RuntimeError: for anything but 200
        """
        headers = {"Authorization": self._authorize(path), "Content-Type": "application/json"}
        self._connection.request(method, V1 + path, json.dumps(body), headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
        return json.loads(text)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def shared_secret(secret: str) -> Callable[[str], str]:
    """Return what signs a path as an edge3 worker does."""

    def sign(path: str) -> str:
        now = int(time.time())
        claims = {"method": path, "aud": "api", "nbf": now, "iat": now, "exp": now + 600}
        return jwt.encode(claims, secret, algorithm="HS512")

    return sign


@dataclass(frozen=True)
class Pace:
    """What a closed loop achieved. Times are in seconds."""

    per_second: float
    p50: float
    p99: float


def closed_loop(steps: Sequence[Callable[[], None]], seconds: float) -> Pace:
    """Run every step again and again in a thread of its own, and return what they did together after the warm-up.

    :raises RuntimeError: when a step failed
    """
    done: list[tuple[float, float]] = []
    failures: list[Exception] = []
    stop = Event()

    def run(step: Callable[[], None]) -> None:
        try:
            while not stop.is_set():
                began = time.perf_counter()
                step()
                ended = time.perf_counter()
                done.append((ended, ended - began))
        except Exception as failure:  # noqa: BLE001 - raised in the caller's thread
            failures.append(failure)
            stop.set()

    threads = [Thread(target=run, args=(step,), daemon=True) for step in steps]
    for thread in threads:
        thread.start()
    begin = time.perf_counter() + WARM
    stop.wait(WARM + seconds)
    end = time.perf_counter()
    stop.set()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(f"The load failed: {failures[0]}") from failures[0]
    times = [took for at, took in done if begin <= at <= end]
    return Pace(len(times) / (end - begin), percentile(times, 0.5), percentile(times, 0.99))
