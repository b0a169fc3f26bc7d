"""What the logs of all jobs share: one look at their files, turns on few connections, and a rate."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple, Protocol, TypeVar

from edge_worker.journal import Ticket
from edge_worker.logfile import LogFile
from edge_worker.settings import Pace
from edge_worker.spans import Spans

log = logging.getLogger(__name__)

TURNS = 2
"""Logs that are read and sent at once: a chunk of each is in memory."""
LOOK = 0.4
"""Seconds between looks at the files; a first line waits no longer to be noticed."""
HASHED_AT_ONCE = 16 * 1024 * 1024
"""Bytes of one file until it is the next one's turn."""

R = TypeVar("R")


class Stored(NamedTuple):
    """The server's answer to a piece of log."""

    cursor: int
    """Bytes that it has."""
    status: int
    """HTTP status."""
    sent: int
    """Bytes on the network, headers aside."""


class LogTransport(Protocol):
    """What shipping needs of the wire."""

    async def append_log(self, ticket: Ticket, start: int, body: bytes) -> Stored:
        """Send bytes from offset ``start``. Raises Fault."""

    async def log_cursor(self, ticket: Ticket) -> int:
        """Return the server's cursor. Raises Fault."""


class Shipping:
    """Owned by the daemon. ``rate`` bounds what it sends, in bytes a second on the network; 0 is no bound."""

    def __init__(self, transport: LogTransport, pace: Callable[[], Pace], spans: Spans, rate: float = 0) -> None:
        self.transport = transport
        self.pace = pace
        self.spans = spans
        self.waiting = 0
        """Logs with something to send whose time has not come."""
        self._rate = rate
        self._free_at = 0.0
        self._turns = asyncio.Semaphore(TURNS)
        self._readers = ThreadPoolExecutor(TURNS, thread_name_prefix="logs-read")
        self._eyes = ThreadPoolExecutor(1, thread_name_prefix="logs-look")
        self._followed: dict[LogFile, Callable[[], None]] = {}
        self._following: asyncio.Task[None] | None = None

    @contextmanager
    def following(self, file: LogFile, grown: Callable[[], None]) -> Iterator[None]:
        """Look at a file again and again for the time of a ``with`` block; ``grown`` is called when it has."""
        self._followed[file] = grown
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow(), name="look-at-logs")
        try:
            yield
        finally:
            del self._followed[file]

    async def read(self, call: Callable[..., R], *arguments: object) -> R:
        """Return what a call gives that reads a file."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, call, *arguments)

    async def send(self, ticket: Ticket, file: LogFile, offset: int, most: int) -> tuple[int, Stored] | None:
        """Send the next bytes of a log when it is its turn, first come, first served; return their number and the
        answer, None where there are none. Raises Fault."""
        async with self._turns:
            await asyncio.sleep(max(0.0, self._free_at - time.monotonic()))
            # Read only now: what waits for its turn, or for a server that is away, takes no memory.
            body = await self.read(file.read, offset, most)
            if not body:
                return None
            answer = await self.transport.append_log(ticket, offset, body)
            if self._rate:
                self._free_at = max(time.monotonic(), self._free_at) + answer.sent / self._rate
            return len(body), answer

    async def close(self) -> None:
        """Look at nothing any more."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        for threads in (self._readers, self._eyes):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        while self._followed:
            try:
                grown, more = await loop.run_in_executor(self._eyes, _look_at, list(self._followed))
            except Exception:
                log.exception("a defect while looking at logs")
                grown, more = [], False
            for file in grown:
                if (tell := self._followed.get(file)) is not None:
                    tell()
            if not more:
                await asyncio.sleep(min(LOOK, self.pace().log_interval))


def _look_at(files: list[LogFile]) -> tuple[list[LogFile], bool]:
    """Return the files that have grown, and whether there is more to take into their checksums."""
    grown, more = [], False
    for file in files:
        before = file.end
        if file.look() > before:
            grown.append(file)
        more |= file.hash(HASHED_AT_ONCE)
    return grown, more
