"""The last lines of each worker's own log. Each function takes a session; none commits."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from edge_otel.models.tables import Worker, WorkerLog
from edge_otel.wire import LogLine

KEPT = 200
"""Lines of a worker."""

SMALLEST = 1024
"""Bytes that a line counts for at least: those of a worker are KEPT lines, or the bytes of so many."""

STEP = 16 * SMALLEST
"""Bytes after which the oldest lines are removed: each removal is a statement of its own."""


class Line(NamedTuple):
    """One line as it is stored; the names are those of the table."""

    source: str
    number: int
    at: datetime
    level: int
    logger: str
    text: str


_LINE = tuple(getattr(WorkerLog, name) for name in Line._fields)


def append(session: Session, worker: Worker, lines: Iterable[tuple[str, LogLine]]) -> None:
    """Store those of the lines, each with its source, that are new, behind the others. The worker's row is locked."""
    end = worker.log_end
    source, number, before = end.get("source"), end.get("number", 0), end.get("upto", 0)
    upto = before
    for origin, line in lines:
        if origin == source and line.number <= number:
            continue
        source, number = origin, line.number
        upto += max(SMALLEST, len(line.text.encode()))
        session.add(
            WorkerLog(
                worker=worker.name,
                upto=upto,
                source=source,
                number=number,
                at=line.time,
                level=line.level,
                logger=line.logger,
                text=line.text,
            )
        )
    if upto > before:
        worker.log_end = {"source": source, "number": number, "upto": upto}
    if upto // STEP > before // STEP:
        old = delete(WorkerLog).where(WorkerLog.worker == worker.name, WorkerLog.upto <= upto - KEPT * SMALLEST)
        session.execute(old.execution_options(synchronize_session=False))


def tail(session: Session, name: str, limit: int = KEPT) -> list[Line]:
    """Return the worker's last lines, oldest first; none where nobody knows it."""
    query = select(*_LINE).where(WorkerLog.worker == name).order_by(WorkerLog.upto.desc()).limit(limit)
    return [Line(*row) for row in reversed(session.execute(query).all())]


def remove(session: Session, name: str) -> None:
    """Forget the worker's lines."""
    session.execute(delete(WorkerLog).where(WorkerLog.worker == name))
