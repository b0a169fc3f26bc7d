"""PostgreSQL tells API servers of queued jobs and changed workers; other databases cannot, and are asked instead."""

from __future__ import annotations

from typing import Any

from airflow import settings
from sqlalchemy import func, select
from sqlalchemy.orm import Session

_CHANNEL = "edge_otel"
JOBS = "jobs"
"""What is told: there is a job in the queue."""
WORKER = "worker:"
"""With a name behind it: look at that worker again, and at its jobs."""


def announce(session: Session, payload: str) -> None:
    """Tell all who listen, when the transaction commits; the same payload twice in one is told once."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_notify(_CHANNEL, payload)))


def announce_jobs(session: Session) -> None:
    """Tell that a job is in the queue."""
    announce(session, JOBS)


def announce_worker(session: Session, name: str) -> None:
    """Tell that a worker's row, or one of its jobs, was changed by somebody else."""
    announce(session, WORKER + name)


class Listener:
    """A connection of its own, for an event loop that watches its file. Errors are the driver's."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @classmethod
    def open(cls) -> Listener | None:
        """Return a listener, or None where the database is not PostgreSQL. Raises DatabaseFailure."""
        engine = settings.get_engine()
        if engine.dialect.name != "postgresql":
            return None
        pooled = engine.raw_connection()
        connection: Any = pooled.driver_connection
        pooled.detach()
        connection.autocommit = True
        connection.cursor().execute(f"LISTEN {_CHANNEL}")
        return cls(connection)

    def fileno(self) -> int:
        """Return what becomes readable when there is something to hear."""
        number: int = self._connection.fileno()
        return number

    def drain(self) -> list[str]:
        """Return what was told since the last time, without waiting."""
        connection = self._connection
        if hasattr(connection, "poll"):
            connection.poll()
            heard = [notice.payload for notice in connection.notifies]
            connection.notifies.clear()
            return heard
        return [notice.payload for notice in connection.notifies(timeout=0)]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
