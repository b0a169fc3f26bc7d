"""The queues as people look at them: filtered pages. None commits."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from edge_otel.models import snapshot
from edge_otel.models.fleet_view import OfTeam, anyone
from edge_otel.state import JobState
from edge_otel.telemetry import fleet
from edge_otel.views import QueueRow, QueuesPage


def page(
    session: Session, now: datetime, *, search: str = "", offset: int = 0, limit: int = 50, sees: OfTeam = anyone
) -> QueuesPage:
    """Return ``limit`` of the queues from ``offset`` on that have ``search`` in their name."""
    seen = [row for row in every(session, now) if sees(row.team)]
    found = sorted((row for row in seen if search.lower() in row.queue.lower()), key=_calm)
    return QueuesPage(queues=found[offset : offset + limit], total=len(found), teams=any(row.team for row in seen))


def _calm(row: QueueRow) -> tuple[bool, int]:
    return row.queued == 0 or row.workers > 0, -row.queued


def every(session: Session, now: datetime) -> list[QueueRow]:
    """Return the queues that have jobs, or that a worker names."""
    return [
        QueueRow(
            queue=known.queue,
            team=known.team,
            queued=known.jobs.get(JobState.QUEUED, 0),
            assigned=known.jobs.get(JobState.ASSIGNED, 0),
            running=known.jobs.get(JobState.RUNNING, 0),
            oldest_age=None if known.oldest is None else max(0.0, (now - known.oldest).total_seconds()),
            workers=known.workers,
            slots=known.slots,
            slots_used=known.slots_used,
        )
        for known in fleet.queues(snapshot.take_queues(session, now))
    ]
