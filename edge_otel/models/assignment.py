"""Queued jobs for all workers that are connected to one server, claimed together. Nothing here commits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, bindparam, or_, select, update
from sqlalchemy.orm import Session

from edge_otel.api.assign import Kind, Seat, Waiting, match, shortlist
from edge_otel.models import fleet
from edge_otel.models.jobs import batches
from edge_otel.models.session import prepare_lock
from edge_otel.models.tables import Job
from edge_otel.state import TAKES_JOBS, JobState

_LOOK_AHEAD = 50
"""Fewest rows to look at: the first ones may be too big for what is free."""


_SEATS = 100
"""Most workers of a kind to look at in one claim; the next claim looks at others."""


class Claimed(NamedTuple):
    """What an offer is made of; the names are those of the table, and ``claim`` is the new one."""

    id: str
    claim: int
    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int
    workload: str
    slots: int
    queue: str
    carrier: dict[str, Any]
    queued_at: datetime


_CLAIMED = tuple(getattr(Job, name) for name in Claimed._fields)


class Batch(NamedTuple):
    """The outcome of one claim."""

    claimed: list[tuple[str, Claimed]]
    """By worker, in the order of the queue."""
    more: bool
    """There may be more for these workers: the limit ended it, or not all of them were looked at."""


def claim_batch(
    session: Session, seats: Collection[Seat], *, now: datetime, offer_timeout: timedelta, limit: int = 500
) -> Batch:
    """Claim queued jobs for these workers, at most ``limit``.

    Rows are read without a lock and only those that are claimed are locked, so that servers which look at the same
    time hide nothing from each other. What another one took meanwhile is passed over. A worker's row has the last word:
    what an administrator took away counts at once, and so does another connection.
    """
    listed = shortlist(seats, _SEATS, now)
    room = {seat.worker: seat for seat in listed}
    passed_over = len(listed) < len(seats)
    checked: set[str] = set()
    blocked: set[Kind] = set()
    lost: set[str] = set()
    claimed: list[tuple[str, Claimed]] = []
    # Every turn claims, or rules out workers, kinds of jobs, or jobs.
    while room and len(claimed) < limit:
        wanted = max(_LOOK_AHEAD, min(limit - len(claimed), sum(seat.free for seat in room.values())))
        waiting = _waiting(session, room.values(), blocked, lost, wanted)
        plan = match(waiting, room.values(), now)
        placements = plan.placements[: limit - len(claimed)]
        unchecked = {worker for _, worker in placements} - checked
        checked |= unchecked
        if differing := _differing(session, {worker: room[worker] for worker in unchecked}, now):
            room = {worker: seat for worker, seat in (room | differing).items() if seat is not None and seat.free > 0}
            continue
        taken = _take(session, {job.id: worker for job, worker in placements}, now, now + offer_timeout)
        for job, worker in placements:
            if job.id in taken:
                claimed.append((worker, taken[job.id]))
                room[worker] = replace(room[worker], free=room[worker].free - job.slots)
        room = {worker: seat for worker, seat in room.items() if seat.free > 0}
        if len(taken) < len(placements):
            # The plan counted on them: what it said of the others does not hold.
            lost |= {job.id for job, _ in placements} - taken.keys()
            continue
        if len(waiting) < wanted or not (placements or plan.blocked - blocked):
            waits = bool(blocked) or len(placements) < len(waiting)
            return Batch(claimed, more=passed_over and waits and bool(claimed))
        blocked |= plan.blocked
        room = {worker: seat for worker, seat in room.items() if worker not in plan.reserved}
    return Batch(claimed, more=bool(claimed) and (bool(room) or passed_over))


def _waiting(
    session: Session, seats: Collection[Seat], blocked: Collection[Kind], lost: Collection[str], limit: int
) -> Sequence[Waiting]:
    """Return the first jobs in the queue that these workers could hold, if they had nothing else."""
    teams: dict[str | None, list[Seat]] = {}
    for seat in seats:
        teams.setdefault(seat.team, []).append(seat)
    query = (
        select(Job.id, Job.team, Job.queue, Job.slots, Job.queued_at)
        .where(Job.state == JobState.QUEUED, or_(*(_for_team(team, held, blocked) for team, held in teams.items())))
        .order_by(Job.urgency, Job.priority.desc(), Job.queued_at)
        .limit(limit)
    )
    if lost:
        query = query.where(Job.id.not_in(lost))
    return [Waiting(*row) for row in session.execute(query)]


def _for_team(team: str | None, seats: Collection[Seat], blocked: Collection[Kind]) -> ColumnElement[bool]:
    wanted = [
        # Not "is not distinct from": PostgreSQL looks that up in no index.
        Job.team.is_(None) if team is None else Job.team == team,
        Job.slots <= max(seat.capacity for seat in seats),
    ]
    served = {seat.queues for seat in seats}
    if None not in served:
        wanted.append(Job.queue.in_(frozenset[str]().union(*(queues for queues in served if queues is not None))))
    too_big: dict[int, list[str]] = {}
    for blocked_team, queue, slots in blocked:
        if blocked_team == team:
            too_big.setdefault(slots, []).append(queue)
    wanted += [or_(Job.slots != slots, Job.queue.not_in(queues)) for slots, queues in too_big.items()]
    return and_(*wanted)


def _differing(session: Session, seats: Mapping[str, Seat], now: datetime) -> dict[str, Seat | None]:
    """Return those workers of whom the database says something else: as it says, None where no job is for them."""
    rows = fleet.stored(session, seats)
    as_stored = {worker: _as_stored(seat, rows.get(worker), now) for worker, seat in seats.items()}
    return {worker: seat for worker, seat in as_stored.items() if seat != seats[worker]}


def _as_stored(seat: Seat, row: fleet.Stored | None, now: datetime) -> Seat | None:
    if row is None or row.connection != seat.connection or row.state not in TAKES_JOBS:
        return None
    if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
        return None
    queues = seat.queues
    if row.queues is not None:
        queues = frozenset(row.queues) if queues is None else queues.intersection(row.queues)
    capacity = seat.capacity if row.slots_wanted is None else min(seat.capacity, row.slots_wanted)
    return replace(seat, queues=queues, capacity=capacity, free=seat.free - (seat.capacity - capacity))


def _take(session: Session, workers: Mapping[str, str], now: datetime, until: datetime) -> dict[str, Claimed]:
    """Claim these jobs for the workers, but for those that somebody else has taken, or is taking."""
    taken: dict[str, Claimed] = {}
    if workers:
        prepare_lock(session, Job)
    for batch in batches(workers):
        query = (
            select(*_CLAIMED).where(Job.id.in_(batch), Job.state == JobState.QUEUED).with_for_update(skip_locked=True)
        )
        rows = {row.id: Claimed(*row) for row in session.execute(query)}
        if not rows:
            continue
        session.connection().execute(_CLAIM, [_claim_of(job_id, workers[job_id], now, until) for job_id in rows])
        taken |= {job_id: row._replace(claim=row.claim + 1) for job_id, row in rows.items()}
    return taken


def _claim_of(job_id: str, worker: str, now: datetime, until: datetime) -> dict[str, object]:
    return {"job_id": job_id, "by": worker, "now": now, "until": until}


# One text for any number of rows: compiling one for each batch would cost more than running it.
_CLAIM = (
    update(Job.__table__)  # type: ignore[arg-type]
    .where(Job.id == bindparam("job_id"))
    .values(
        state=JobState.ASSIGNED,
        claim=Job.claim + 1,
        worker=bindparam("by"),
        assigned_at=bindparam("now"),
        offer_expires_at=bindparam("until"),
        changed_at=bindparam("now"),
    )
)
