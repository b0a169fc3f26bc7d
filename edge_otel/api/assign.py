"""Which worker gets which job: pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heapify, heappop, heapreplace, nlargest
from random import Random

RESERVE_AFTER = timedelta(seconds=10)
"""A job that waited so long for a worker with room for all its slots gets one kept free of jobs behind it."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A connected worker that takes jobs."""

    worker: str
    connection: str
    """The channel that its job will be offered on."""
    team: str | None
    queues: frozenset[str] | None
    """None serves every queue."""
    capacity: int
    free: int
    """Slots, as is ``capacity``."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A queued job."""

    id: str
    team: str | None
    queue: str
    slots: int
    queued_at: datetime

    @property
    def kind(self) -> Kind:
        """Jobs of one kind fit the same workers."""
        return self.team, self.queue, self.slots


Kind = tuple[str | None, str, int]
"""Team, queue and slots."""


@dataclass(frozen=True)
class Plan:
    """Who gets what."""

    placements: tuple[tuple[Waiting, str], ...]
    """Jobs with their workers, in the order of the queue."""
    blocked: frozenset[Kind]
    """Jobs of these kinds fit nowhere any more."""
    reserved: frozenset[str]
    """Workers that must take no job from behind those that were given to ``match``: a big one waits for them."""


def shortlist(seats: Iterable[Seat], most: int, now: datetime) -> list[Seat]:
    """Return those with free slots: of each team and set of queues the ``most`` that have most.

    A fleet of thousands is more than a handful of jobs needs. Among equals the lot decides, so that all have a turn. A
    worker that is not among them gets no job, so the free slots that a big job waits for only grow until it is.
    """
    lot = Random(now.timestamp())  # noqa: S311 - the same input gives the same list
    alike: dict[tuple[str | None, frozenset[str] | None], list[Seat]] = {}
    for seat in seats:
        if seat.free > 0:
            alike.setdefault((seat.team, seat.queues), []).append(seat)
    listed: list[Seat] = []
    for group in alike.values():
        listed += nlargest(most, group, key=lambda seat: seat.free + lot.random())
    return listed


def match(jobs: Iterable[Waiting], seats: Iterable[Seat], now: datetime) -> Plan:
    """Return which of ``jobs``, given in the order of the queue, go to which worker.

    A job goes to the least loaded worker that has room for it; among equals the lot decides, drawn anew from ``now``.
    One that fits nowhere holds up no other. But for the first of its kind that has waited for RESERVE_AFTER, the worker
    that is nearest to having room is reserved: it takes no job behind that one. So its free slots only grow from plan
    to plan, but for jobs that are ahead, until the big job fits.
    """
    jobs = tuple(jobs)
    room = _Room(seats, {job.queue for job in jobs}, now)
    placements: list[tuple[Waiting, str]] = []
    blocked: set[Kind] = set()
    provided: set[Kind] = set()
    reserved: set[str] = set()
    for job in jobs:
        kind = job.kind
        if kind not in blocked:
            seat = room.least_loaded(kind)
            if seat is not None:
                room.take(seat, job.slots)
                placements.append((job, room.seats[seat].worker))
                continue
            blocked.add(kind)
        if kind not in provided and now - job.queued_at > RESERVE_AFTER:
            provided.add(kind)
            seat = room.nearest(kind)
            if seat is not None:
                room.close(seat)
                reserved.add(room.seats[seat].worker)
    return Plan(tuple(placements), frozenset(blocked), frozenset(reserved))


_Entry = tuple[float, float, int, int]
"""Minus the free share, lot, number of the seat, its free slots when the entry was made: the smallest goes first."""


class _Room:
    """The free slots of all seats while a plan is made.

    Seats that serve the same queues are looked up together, and a heap per kind of job has the least loaded on top.
    Free slots only become fewer, so an entry's load is a lower bound: it is brought up to date when it is on top.
    """

    def __init__(self, seats: Iterable[Seat], queues: set[str], now: datetime) -> None:
        # The order in which seats are given must not matter.
        self.seats = sorted((seat for seat in seats if seat.free > 0), key=lambda seat: seat.worker)
        self._free = [seat.free for seat in self.seats]
        lot = Random(now.timestamp())  # noqa: S311 - the same input gives the same plan
        self._lots = [lot.random() for _ in self.seats]
        alike: dict[tuple[str | None, frozenset[str] | None], list[int]] = {}
        for number, seat in enumerate(self.seats):
            alike.setdefault((seat.team, seat.queues), []).append(number)
        self._groups = list(alike.values())
        self._serving: dict[tuple[str | None, str], list[int]] = {}
        for group, (team, served) in enumerate(alike):
            for queue in queues if served is None else queues & served:
                self._serving.setdefault((team, queue), []).append(group)
        self._heaps: dict[tuple[tuple[int, ...], int], list[_Entry]] = {}

    def least_loaded(self, kind: Kind) -> int | None:
        """Return the seat that a job of this kind goes to, or None where none has room."""
        slots = kind[2]
        heap = self._heap(kind)
        while heap:
            _, _, number, free = heap[0]
            if self._free[number] == free:
                return number
            if self._free[number] < slots:
                heappop(heap)
            else:
                heapreplace(heap, self._entry(number))
        return None

    def _heap(self, kind: Kind) -> list[_Entry]:
        team, queue, slots = kind
        # Queues that the same seats serve share their heaps.
        key = (tuple(self._serving.get((team, queue), ())), slots)
        heap = self._heaps.get(key)
        if heap is None:
            heap = [self._entry(number) for number in self._serving_seats(kind) if self._free[number] >= slots]
            heapify(heap)
            self._heaps[key] = heap
        return heap

    def nearest(self, kind: Kind) -> int | None:
        """Return the seat with the most free slots of those that could ever hold a job of this kind."""
        able = (n for n in self._serving_seats(kind) if self._free[n] > 0 and self.seats[n].capacity >= kind[2])
        return max(able, key=lambda number: (self._free[number], -number), default=None)

    def _serving_seats(self, kind: Kind) -> Iterator[int]:
        team, queue, _ = kind
        for group in self._serving.get((team, queue), ()):
            yield from self._groups[group]

    def take(self, number: int, slots: int) -> None:
        self._free[number] -= slots

    def close(self, number: int) -> None:
        self._free[number] = 0

    def _entry(self, number: int) -> _Entry:
        seat, free = self.seats[number], self._free[number]
        return -free / seat.capacity, self._lots[number], number, free
