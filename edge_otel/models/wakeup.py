"""PostgreSQL tells API servers of queued jobs and changed workers; other databases cannot, and are asked instead."""

from __future__ import annotations

import os
from typing import Any

from airflow import settings
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

_CHANNEL = "edge_otel"
JOBS = "jobs"
"""What is told: there is a job in the queue."""
_TOLD_IN = "edge_otel_told_in"
WORKER = "worker:"
"""With a name behind it: look at that worker again, and at its jobs."""


def announce(session: Session, payload: str) -> None:
    """Tell all who listen, when the transaction commits; the same payload twice in one is told once."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_notify(_CHANNEL, payload)))


def announce_jobs(session: Session) -> None:
    """Tell that a job is in the queue: one statement, however many jobs a transaction queues."""
    # A savepoint takes along what was told in it when it is rolled back.
    transaction = session.get_nested_transaction() or session.get_transaction()
    if transaction is None or session.info.get(_TOLD_IN) is not transaction:
        announce(session, JOBS)
        session.info[_TOLD_IN] = session.get_nested_transaction() or session.get_transaction()


def announce_worker(session: Session, name: str) -> None:
    """Tell that a worker's row, or one of its jobs, was changed by somebody else."""
    announce(session, WORKER + name)


class Listener:
    """A connection of its own, for an event loop that watches its file. Errors are the driver's."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        # A file of our own: when the connection breaks, the driver closes its own, whose number may be another file's
        # by the time that the event loop is told to watch it no more.
        self._file = os.dup(connection.fileno())

    @classmethod
    def open(cls) -> Listener | None:
        """Return a listener, or None where the database is not PostgreSQL. Raises DatabaseFailure."""
        engine = settings.get_engine()
        if engine.dialect.name != "postgresql":
            return None
        connection = engine.connect()
        try:
            # At once, and outside of any transaction: in one, nothing is heard.
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text(f"LISTEN {_CHANNEL}"))
            driver_connection = connection.connection.driver_connection
            # The pool counts it no more.
            connection.detach()
        except BaseException:
            connection.close()
            raise
        return cls(driver_connection)

    def fileno(self) -> int:
        """Return what becomes readable when there is something to hear."""
        return self._file

    def drain(self) -> list[str]:
        """Return what was told since the last time, without waiting."""
        if not hasattr(self._connection, "poll"):
            # psycopg; what follows is psycopg2.
            return [notice.payload for notice in self._connection.notifies(timeout=0)]
        self._connection.poll()
        heard = [notice.payload for notice in self._connection.notifies]
        self._connection.notifies.clear()
        return heard

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
        os.close(self._file)
