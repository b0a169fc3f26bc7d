"""Load on edge3's API by simulated workers of its own kind."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from tests.bench.http_load import Pace, closed_loop
from tests.bench.polling_worker import PollingWorker, polling_workers
from tests.bench.sizes import Sizes

POLL_INTERVAL = 5.0
"""Seconds, edge3's default; a worker looks at every poll whether its heartbeat, of 30 s, is due."""
POLLS_PER_HEARTBEAT = 6


class Edge3Load:
    """Everything that is measured of edge3's API by simulated workers."""

    def __init__(self, url: str, authorize: Callable[[str], str], sizes: Sizes) -> None:
        self._url = url
        self._authorize = authorize
        self._sizes = sizes

    def _workers(self, count: int, prefix: str) -> list[PollingWorker]:
        return polling_workers(count, self._url, self._authorize, "apache-airflow-providers-edge3", prefix)

    def heartbeats(self) -> dict[str, Pace]:
        """Return the pace of heartbeats."""
        workers = self._workers(self._sizes.heartbeat_connections, "beat")
        return {"heartbeats": closed_loop([worker.heartbeat for worker in workers], self._sizes.seconds)}

    def assignment(self) -> dict[str, Pace]:
        """Return the pace of jobs that are fetched and confirmed, and of those that are ended too."""
        workers = self._workers(self._sizes.fetching_connections, "take")
        steps = {"assigned": ("running",), "assigned_ended": ("running", "success")}
        return {
            name: closed_loop([lambda w=worker, s=states: w.take(*s) for worker in workers], self._sizes.seconds)
            for name, states in steps.items()
        }

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Keep idle workers for the time of a ``with`` block, each polling at a random phase."""
        workers = self._workers(self._sizes.idle_workers, "idle")
        stop = Event()
        failures: list[Exception] = []

        def live(worker: PollingWorker) -> None:
            polls = random.randrange(POLLS_PER_HEARTBEAT)
            try:
                stop.wait(random.random() * POLL_INTERVAL)
                while not stop.is_set():
                    if polls % POLLS_PER_HEARTBEAT == 0:
                        worker.heartbeat()
                    worker.fetch()
                    polls += 1
                    stop.wait(POLL_INTERVAL)
            except Exception as failure:  # noqa: BLE001 - raised in the caller's thread
                failures.append(failure)

        threads = [Thread(target=live, args=(worker,), daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        if failures:
            raise RuntimeError(f"An idle worker failed: {failures[0]}") from failures[0]
