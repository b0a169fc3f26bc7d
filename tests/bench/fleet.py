"""A fleet of simulated workers in an event loop with a thread of its own: it grows at a bounded rate."""

from __future__ import annotations

import asyncio
import gc
import resource
import time
from collections.abc import Callable, Coroutine
from threading import Thread
from typing import Any, Self

from tests.bench.simulated import Habits, SimulatedWorker
from tests.bench.tally import Tally

LOOK = 0.02
"""Seconds between looks at the fleet."""


class Fleet:
    """Workers ``bench-00001`` and so on, from ``with`` to its end. ``token`` is one for all of them."""

    def __init__(self, url: str, token: str, habits: Habits | None = None) -> None:
        self.tally = Tally()
        self._url = url
        self._token = token
        self._habits = habits or Habits()
        self._workers: list[SimulatedWorker] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="fleet", daemon=True)

    def __enter__(self) -> Self:
        allow_many_files()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def connected(self) -> int:
        """How many workers have been welcomed and not been cut off since."""
        return sum(worker.connected for worker in self._workers)

    def grow(self, size: int, per_second: float) -> float:
        """Start workers until there are this many, evenly over time; return the seconds until all were welcomed."""
        began = time.monotonic()
        starting = size - len(self)
        self._run(self._start(size, per_second))
        self.until(lambda: self.connected >= size, f"{size} workers to be connected", 60 + starting / per_second)
        # A fleet is many objects that stay: to go through them again and again would be seen in every time.
        gc.freeze()
        return time.monotonic() - began

    def reset(self) -> None:
        """Begin to measure anew."""
        self._loop.call_soon_threadsafe(self.tally.reset)

    def until(self, look: Callable[[], bool], what: str, timeout: float) -> None:
        """Return when ``look`` is true.

        :raises RuntimeError: when a worker failed, or after ``timeout`` seconds, with what servers said
        """
        end = time.monotonic() + timeout
        while not look():
            for task in self._tasks:
                if task.done():
                    task.result()
            if time.monotonic() > end:
                raise RuntimeError(
                    f"Waited {timeout:.0f} s for {what}; connected: {self.connected} of {len(self)},"
                    f" refused {self.tally.refused} times; {self.tally.errors[-1:] or 'no errors'}"
                )
            time.sleep(LOOK)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _start(self, size: int, per_second: float) -> None:
        began, before = time.monotonic(), len(self)
        for number in range(before, size):
            await asyncio.sleep(began + (number - before) / per_second - time.monotonic())
            worker = SimulatedWorker(f"bench-{number + 1:05}", self._url, self._token, self._habits, self.tally)
            self._workers.append(worker)
            self._tasks.append(asyncio.create_task(worker.run(), name=worker.name))

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def allow_many_files() -> None:
    """Raise this process's limit of open files, and so that of what it starts, as far as it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
