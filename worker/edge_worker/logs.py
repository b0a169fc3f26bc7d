"""Ships a job's log: byte ranges in order from the server's cursor, until the whole of it is stored there."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass, replace

from edge_otel.telemetry import context
from edge_otel.telemetry.context import Carrier
from edge_worker.faults import Fault, NotAllowed, Refused, Rewind, Stale, Unreachable
from edge_worker.journal import Ticket
from edge_worker.logfile import LogFile
from edge_worker.logplan import due_in
from edge_worker.patience import despite_defects, persist, wait
from edge_worker.plan import backoff
from edge_worker.shipping import AT_ONCE, Piece, Shipping

log = logging.getLogger(__name__)

SMALLEST_CHUNK = 1024
"""Bytes; a server that finds this too large will not take the log at all."""

CHECKSUM_WITHIN = 0.5
"""Seconds that a job's end waits for the checksum of what its last moments have written."""


@dataclass(frozen=True)
class _Failures:
    """One chunk's failures in a row, of which the last is kept."""

    carrier: Carrier
    start: float
    end: float
    piece: Piece
    fault: Fault


class LogShipper:
    """Follows one log. Its failures are its own: nothing of a job waits for it but its folder."""

    def __init__(self, shipping: Shipping, ticket: Ticket, file: LogFile) -> None:
        self._shipping = shipping
        self._failures: _Failures | None = None
        self._ticket = ticket
        self._file = file
        self._what = f"log of job {ticket.id}"
        self._offset = 0
        self._furthest = 0
        self._rewinds = 0
        """Since the server had as much as ever."""
        self._chunk = 0
        self._length: int | None = None
        self._losses = 0
        """Of the file, when the server last told what it has."""
        self._sent_at = 0.0
        self._stirred = asyncio.Event()

    async def measure(self) -> tuple[int, str | None]:
        """Let the log end here; return its length, and its SHA-256 where that is known."""
        return await asyncio.to_thread(self._file.finish, CHECKSUM_WITHIN)

    def finish(self, length: int) -> None:
        """Tell that the log ends at ``length`` bytes, as was or will be reported."""
        self._length = length
        self._stirred.set()

    @property
    def end(self) -> int:
        """Length of the log; another one than was told where bytes went missing after that."""
        return self._file.end

    @property
    def backlog(self) -> int:
        """Bytes that the server does not have yet."""
        return max(0, self._file.end - self._offset)

    async def ship(self, resume: bool = False) -> None:
        """Return when all is stored, or when the server will never take it. Raises Stale.

        ``resume`` asks for the server's cursor first.
        """
        try:
            if resume:
                await despite_defects(self._resume, self._what)
            await despite_defects(self._follow, self._what)
        except Stale:
            raise
        except Refused as refusal:
            missing = f"bytes {self._offset} to {self._file.end - 1} of its log" if self.backlog else "its log"
            log.error("job %s: the server does not take %s: %s", self._ticket.id, missing, refusal)  # noqa: TRY400
        finally:
            self._file.close()

    async def _resume(self) -> None:
        cursor = await persist(lambda: self._shipping.transport.log_cursor(self._ticket), self._what)
        await self._shipping.read(self._file.resume, cursor)
        self._offset = cursor

    async def _follow(self) -> None:
        with self._shipping.following(self._file, self._stirred.set):
            while await self._due():
                await self._advance()
        if late := await self._shipping.read(self._file.late):
            log.warning("job %s: %d bytes came to its log after its end; they are not kept", self._ticket.id, late)

    async def _due(self) -> bool:
        """Wait until something is to be sent; False: all is there."""
        shipping, frozen = self._shipping, False
        while True:
            if self._length is not None:
                if not frozen:
                    await shipping.read(self._file.freeze, self._length)
                    frozen = True
                return self._offset < self._file.end
            pace = shipping.pace()
            left = due_in(
                self._file.end - self._offset,
                self._limit(),
                time.monotonic() - self._sent_at,
                pace.log_interval,
                shipping.waiting,
            )
            if left == 0:
                return True
            self._stirred.clear()
            shipping.waiting += left is not None
            try:
                await wait(self._stirred, left)
            finally:
                shipping.waiting -= left is not None

    async def _advance(self) -> None:
        before = self._offset
        try:
            await persist(self._take_turn, self._what)
        except Refused as refusal:
            size = min(self._limit(), self._file.end - self._offset)
            if isinstance(refusal, Stale) or refusal.status != 413 or size <= SMALLEST_CHUNK:
                raise
            self._chunk = max(SMALLEST_CHUNK, size // 2)
        finally:
            self._tell_failures()
        self._sent_at = time.monotonic()
        if self._offset >= self._furthest:
            self._furthest, self._rewinds = self._offset, 0
        elif self._offset < before:
            # A server that keeps forgetting would be asked as fast as it answers.
            what = f"the server has {self._offset} bytes of its log, of {before} that it had; it gets the rest again"
            log.warning("job %s: %s", self._ticket.id, what)
            await asyncio.sleep(backoff(self._rewinds, random.random()))  # noqa: S311 - jitter, not a secret
            self._rewinds += 1

    async def _take_turn(self) -> None:
        """Send some pieces, of which the next is made ready while one is on its way."""
        shipping, limit, before = self._shipping, self._limit(), self._offset
        async with shipping.turn():
            await self._ask_again()
            piece = await shipping.prepare(self._file, self._offset, limit)
            for _ in range(AT_ONCE):
                if piece is None:
                    return
                ahead: asyncio.Task[Piece | None] | None = None
                if self._file.end - piece.end >= limit:
                    ahead = asyncio.create_task(shipping.prepare(self._file, piece.end, limit))
                try:
                    await self._send(piece)
                except (Unreachable, NotAllowed):
                    if self._offset == before:
                        raise
                    # Pauses grow with failures in a row, and this is the first after a success.
                    return
                finally:
                    following = await ahead if ahead is not None else None
                piece = following if self._offset == piece.end else None

    async def _ask_again(self) -> None:
        """Learn what the server has, where the answer was lost and the bytes in question are gone from the file."""
        if self._failures is None:
            return
        end, losses = await self._shipping.read(self._file.look), self._file.losses
        if losses != self._losses:
            cursor = await self._shipping.transport.log_cursor(self._ticket)
            self._offset, self._losses = max(self._offset, min(cursor, end)), losses

    async def _send(self, piece: Piece) -> None:
        """Have a piece stored, or learn that the server wants another one."""
        carrier, begun = context.child_of(self._ticket.span), time.time()
        try:
            try:
                cursor, status = await self._shipping.send(replace(self._ticket, span=carrier), piece)
                right = piece.start < cursor <= self._file.end
            except Rewind as rewind:
                cursor, status, right = rewind.cursor, rewind.status, rewind.cursor < piece.start
            if not right:
                raise Unreachable(
                    f"the server speaks of {cursor} bytes, after those from {piece.start} on", status=status
                )
        except Fault as fault:
            since = self._failures.start if self._failures else begun
            self._failures = _Failures(carrier, since, time.time(), piece, fault)
            raise
        self._tell_failures()
        self._shipping.spans.shipped(self._ticket, carrier, begun, time.time(), piece.start, piece.length, status)
        self._offset, self._losses = cursor, self._file.losses

    def _limit(self) -> int:
        return min(self._chunk or self._shipping.limit, self._shipping.limit)

    def _tell_failures(self) -> None:
        # An outage of an hour is one span for the chunk, not a hundred.
        if (row := self._failures) is not None:
            start, length = row.piece.start, row.piece.length
            self._shipping.spans.shipped(self._ticket, row.carrier, row.start, row.end, start, length, row.fault)
            self._failures = None
