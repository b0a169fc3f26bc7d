"""Load on our API by simulated workers on channels, and by heartbeats over v1 for comparison."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.fleet import Fleet
from tests.bench.http_load import WARM, Pace, closed_loop
from tests.bench.polling_worker import polling_workers
from tests.bench.simulated import Habits
from tests.bench.sizes import Sizes
from tests.bench.spread import percentile


class ChannelLoad:
    """Everything that is measured of our API by simulated workers."""

    def __init__(self, url: str, token: str, sizes: Sizes) -> None:
        self._url = url
        self._token = token
        self._sizes = sizes

    def heartbeats(self) -> dict[str, Pace]:
        """Return the pace of heartbeats over channels, each sent when the last is answered, and over v1."""
        sizes = self._sizes
        with Fleet(self._url, self._token, Habits(flood=True)) as fleet:
            fleet.grow(sizes.heartbeat_connections, sizes.connects_per_second)
            time.sleep(WARM)
            fleet.reset()
            began = time.perf_counter()
            time.sleep(sizes.seconds)
            times = list(fleet.tally.heartbeats)
            took = time.perf_counter() - began
        over_channels = Pace(len(times) / took, percentile(times, 0.5), percentile(times, 0.99))
        workers = polling_workers(
            sizes.heartbeat_connections, self._url, lambda _: f"Bearer {self._token}", "edge-otel", "bench-v1"
        )
        over_v1 = closed_loop([worker.heartbeat for worker in workers], sizes.seconds)
        return {"heartbeats": over_channels, "heartbeats_v1": over_v1}

    def assignment(self) -> dict[str, Pace]:
        """Return the pace of jobs that are offered, confirmed, and ended at once, which frees their slots."""
        sizes = self._sizes
        with Fleet(self._url, self._token, Habits(slots=sizes.taking_slots, job_seconds=0.0)) as fleet:
            tally = fleet.tally
            began = time.perf_counter()
            fleet.grow(sizes.taking_workers, sizes.connects_per_second * 10)
            end = began + WARM + 2 * sizes.seconds
            fleet.until(lambda: len(tally.ended) >= sizes.queued or time.perf_counter() > end, "jobs to end", 600)
            took = time.perf_counter() - began
            confirmed, ended = len(tally.holders), len(tally.ended)
            if tally.doubled() or not ended:
                raise RuntimeError(f"{ended} jobs ended, {tally.doubled()} were given to two workers.")
        offered, times = percentile(tally.offered, 0.5), percentile(tally.offered, 0.99)
        return {
            "assigned": Pace(confirmed / took, offered, times),
            "assigned_ended": Pace(ended / took, offered, times),
        }

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Keep idle workers for the time of a ``with`` block."""
        with Fleet(self._url, self._token) as fleet:
            fleet.grow(self._sizes.idle_workers, self._sizes.connects_per_second)
            yield
            if fleet.tally.broken or fleet.connected < self._sizes.idle_workers:
                raise RuntimeError(f"{fleet.tally.broken} channels of idle workers broke; {fleet.tally.errors[-1:]}")
