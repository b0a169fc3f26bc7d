"""What the logs of all jobs share: one look at their files, turns on few connections, and a rate."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple, Protocol, TypeVar

from isal import igzip

from edge_worker.faults import Unreachable
from edge_worker.journal import Ticket
from edge_worker.logfile import LogFile
from edge_worker.logplan import FIRST, SLOW, SMALLEST, fitting
from edge_worker.settings import Pace
from edge_worker.spans import Spans
from edge_worker.turn import Turn

log = logging.getLogger(__name__)

TURNS = 2
"""Logs that are read and sent at once: two chunks of each are in memory."""
AT_ONCE = 4
"""Whole chunks that one log may send in a turn."""
GZIP_FROM = 512
"""Bytes; smaller bodies do not gain."""
LOOK = 0.4
"""Seconds between looks at the files; a first line waits no longer to be noticed."""
HASHED_AT_ONCE = 16 * 1024 * 1024
"""Bytes of one file until it is the next one's turn."""

R = TypeVar("R")


class Piece(NamedTuple):
    """Bytes of a log as they are sent."""

    start: int
    length: int
    body: bytes
    packed: bool
    """With gzip; its length is that of the log's bytes all the same."""

    @property
    def end(self) -> int:
        """Where the next piece begins."""
        return self.start + self.length


class LogTransport(Protocol):
    """What shipping needs of the wire."""

    async def append_log(self, ticket: Ticket, piece: Piece) -> tuple[int, int]:
        """Send bytes; return the server's cursor and the HTTP status. Raises Fault."""

    async def log_cursor(self, ticket: Ticket) -> int:
        """Return the server's cursor. Raises Fault."""


class Shipping:
    """Owned by the daemon."""

    def __init__(self, transport: LogTransport, pace: Callable[[], Pace], spans: Spans) -> None:
        self.transport = transport
        self.pace = pace
        self.spans = spans
        self.waiting = 0
        """Logs with something to send whose time has not come."""
        self.eye = Turn("no logs")
        self._fits = FIRST
        """Bytes of a log that the network takes at once, as far as that is known."""
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

    @property
    def limit(self) -> int:
        """Most bytes of one piece."""
        known = min(self._fits, self.pace().log_chunk_bytes)
        rate = self.pace().log_rate
        return min(known, max(SMALLEST, int(rate * SLOW))) if rate else known

    async def read(self, call: Callable[..., R], *arguments: object) -> R:
        """Return what a call gives that reads a file."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, call, *arguments)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for this log's turn, first come, first served, and hold it for the time of a ``with`` block.

        What waits, for its turn or for a server that is away, has nothing in memory.
        """
        async with self._turns:
            yield

    async def prepare(self, file: LogFile, start: int, most: int) -> Piece | None:
        """Return the next piece of a log, None where there is none yet."""
        return await self.read(_cut, file, start, most)

    async def send(self, ticket: Ticket, piece: Piece) -> tuple[int, int]:
        """Send a piece as soon as the rate allows it; return the server's cursor and the HTTP status. Raises Fault."""
        await asyncio.sleep(max(0.0, self._free_at - time.monotonic()))
        if rate := self.pace().log_rate:
            self._free_at = max(time.monotonic(), self._free_at) + len(piece.body) / rate
        limit, begun = self.limit, time.monotonic()
        try:
            answer = await self.transport.append_log(ticket, piece)
        except Unreachable as fault:
            if fault.status is None:
                self._fits = fitting(limit, piece.length, None)
            raise
        self._fits = fitting(limit, piece.length, time.monotonic() - begun)
        return answer

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
            self.eye(f"looking at {len(self._followed)} logs")
            try:
                for file in await loop.run_in_executor(self._eyes, _grown, list(self._followed)):
                    if (tell := self._followed.get(file)) is not None:
                        tell()
                # Then: what is to be sent does not wait for the checksums of others.
                more = await loop.run_in_executor(self._eyes, _hash, list(self._followed))
            except Exception:
                log.exception("a defect while looking at logs")
                more = False
            if not more:
                self.eye(f"waiting for {len(self._followed)} logs to grow")
                await asyncio.sleep(min(LOOK, self.pace().log_interval))
        self.eye("no logs")


def _cut(file: LogFile, start: int, most: int) -> Piece | None:
    data = file.read(start, most)
    if not data:
        return None
    if len(data) >= GZIP_FROM and len(packed := igzip.compress(data, 1)) < len(data):
        return Piece(start, len(data), packed, packed=True)
    return Piece(start, len(data), data, packed=False)


def _grown(files: list[LogFile]) -> list[LogFile]:
    """Return the files that have grown."""
    return [file for file in files if file.end < file.look()]


def _hash(files: list[LogFile]) -> bool:
    """Return whether there is more to take into the files' checksums."""
    return sum(file.hash(HASHED_AT_ONCE) for file in files) > 0
