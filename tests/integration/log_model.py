"""What a task's log must be, as a model of a few lines, and random runs of those who write it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

LONGEST = 60
"""Bytes of one claim's log: short, so that repeats, overlaps and gaps meet the ends of chunks often."""


class Gap(Exception):
    """Bytes before those that were sent are missing; ``cursor`` of them are stored."""

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor


class Store(Protocol):
    """The store under test, with one job."""

    def append(self, claim: int, first: int, data: bytes) -> int:
        """Store bytes; return the cursor. Raises Gap."""

    def cursor(self, claim: int) -> int:
        """Return how many bytes of a claim's log are stored."""

    def begin(self, claim: int) -> None:
        """Let a task that was deferred run again, under its next claim."""

    def end(self, claim: int, data: bytes) -> None:
        """Report the end of a claim whose log is ``data``; it may not be the last one any more."""

    def finalise(self) -> bool:
        """Do what is done at the end and by every sweep; return whether all bytes are here."""

    def disturb(self, chance: random.Random, claim: int, first: int, data: bytes) -> None:
        """Try what must change nothing."""


@dataclass
class Part:
    """What one claim of the job logs, and the shipper of it: it sends from its offset, and goes where it is told."""

    claim: int
    data: bytes
    grown: int = 0
    """Bytes that are in the worker's file."""
    offset: int = 0
    stored: int = 0
    """The model's word on the store."""
    told: bool = False
    """Its end was reported."""

    @property
    def whole(self) -> bool:
        """Whether the store has all of it, and knows that."""
        return self.told and self.stored == len(self.data)


class Run:
    """One job from its first byte to its last, with everything going wrong on the way."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.seed = seed
        self.chance = random.Random(seed)
        self.parts: list[Part] = []
        self.over = False
        self.sent = 0

    def play(self, steps: int, disturbed: float = 0.0) -> bytes:
        """Let this many things happen, then the shippers go on alone; return what the log must be."""
        self._begin()
        for _ in range(steps):
            self._step()
            if self.chance.random() < disturbed:
                part = self.chance.choice(self.parts)
                self.store.disturb(self.chance, part.claim, part.stored, part.data[: part.grown])
        self.over = True
        for part in self.parts:
            self._end(part)
            while part.offset < len(part.data):
                part.offset = self._append(part, part.offset, part.data[part.offset :])
            assert part.stored == len(part.data), self.seed
        assert self.store.finalise(), self.seed
        return b"".join(part.data for part in self.parts)

    def _begin(self) -> None:
        claim = len(self.parts) + 1
        self.parts.append(Part(claim, self.chance.randbytes(self.chance.randrange(1, LONGEST))))
        if claim > 1:
            self.store.begin(claim)

    def _end(self, part: Part) -> None:
        part.grown, part.told = len(part.data), True
        self.store.end(part.claim, part.data)

    def _step(self) -> None:
        part = self.chance.choice(self.parts)
        match self.chance.choices(("ship", "lose", "stray", "restart", "defer", "end", "sweep"), (8, 3, 4, 1, 1, 1, 1))[
            0
        ]:
            case "ship":
                self._ship(part)
            case "lose":
                self._ship(part, heard=False)
            case "stray":
                self._stray(part)
            case "restart":
                # A daemon that starts asks for the cursor, or begins anew where nobody answers.
                part.offset = self.store.cursor(part.claim) if self.chance.random() < 0.5 else 0
            case "defer" if not self.over and len(self.parts) < 3:
                last = self.parts[-1]
                last.grown = len(last.data)
                if self.chance.random() < 0.5:
                    # Otherwise its report comes when the task has gone on elsewhere.
                    self._end(last)
                self._begin()
            case "end":
                self._end(part)
                self.over |= part is self.parts[-1]
            case "sweep":
                whole = self.over and all(part.whole for part in self.parts)
                assert self.store.finalise() == whole, self.seed

    def _ship(self, part: Part, *, heard: bool = True) -> None:
        """Send the next chunk as the real shipper does; its answer may not be heard."""
        part.grown = min(len(part.data), part.grown + self.chance.randrange(25))
        data = part.data[part.offset : min(part.grown, part.offset + self.chance.randrange(1, 40))]
        if data:
            cursor = self._append(part, part.offset, data)
            part.offset = cursor if heard else part.offset

    def _stray(self, part: Part) -> None:
        """Let any range of the file arrive: late, early, twice, or of another daemon."""
        first = self.chance.randrange(part.grown + 1)
        self._append(part, first, part.data[first : self.chance.randrange(first, part.grown + 1)])

    def _append(self, part: Part, first: int, data: bytes) -> int:
        """Append, and hold the answer to the model's."""
        self.sent += len(data)
        gap = first > part.stored
        part.stored = part.stored if gap else max(part.stored, first + len(data))
        try:
            cursor = self.store.append(part.claim, first, data)
        except Gap as error:
            assert gap, f"seed {self.seed}: no byte was missing"
            cursor = error.cursor
        else:
            assert not gap, f"seed {self.seed}: a gap was not seen"
        assert cursor == part.stored, f"seed {self.seed}: the cursor is {cursor}, not {part.stored}"
        return cursor


def tiles(chunks: list[tuple[int, int, int]]) -> Iterator[str]:
    """Yield what is wrong with chunks (claim, offset, length), which are in order."""
    ends: dict[int, int] = {}
    for claim, offset, length in chunks:
        if offset != ends.get(claim, 0) or length <= 0:
            yield f"claim {claim}: {length} bytes at {offset}, after {ends.get(claim, 0)}"
        ends[claim] = offset + length
