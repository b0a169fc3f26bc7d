"""Database sessions of our own: never Airflow's scoped one, which its caller may still be using."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from airflow.utils.session import create_session
from sqlalchemy import delete, false, func, select, text
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.orm import Session

__all__ = ["Session", "database_now", "hasty_session", "insert_missing", "new_session", "prepare_lock"]

LOCK_WAIT, FROZEN_AFTER = 3, 10
"""Seconds."""


def prepare_lock(session: Session, table: type[Any]) -> None:
    """Take the lock that SQLite has instead of row locks; elsewhere do nothing.

    ``SELECT … FOR UPDATE`` locks nothing there, but a statement that could write takes the whole database.
    """
    if session.get_bind().dialect.name == "sqlite":
        session.execute(delete(table).where(false()).execution_options(synchronize_session=False))


def database_now(session: Session) -> datetime:
    """Return the time by the database's clock, which all servers share: what one leases must not seem free to another
    whose own clock is fast. SQLite has none, and is used on one machine alone."""
    dialect = session.get_bind().dialect.name
    if dialect == "sqlite":
        return datetime.now(UTC)
    clock = func.utc_timestamp(6) if dialect == "mysql" else func.timezone("UTC", func.clock_timestamp())
    now: datetime = session.execute(select(clock)).scalar_one()
    return now.replace(tzinfo=UTC)


def insert_missing(session: Session, table: type[Any], **values: Any) -> None:
    """Insert a row unless one with its key is there, or is being inserted by another transaction."""
    dialect = session.get_bind().dialect.name
    if dialect == "mysql":
        # Not IGNORE: that takes a shared lock on a row that is there, and two who then want it alone are deadlocked.
        key = next(iter(values))
        session.execute(mysql.insert(table).values(**values).on_duplicate_key_update({key: values[key]}))
        return
    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    session.execute(insert(table).values(**values).on_conflict_do_nothing())


@contextmanager
def hasty_session() -> Iterator[Session]:
    """Yield a session that waits for locks LOCK_WAIT seconds at most: for work that many others wait for.

    Beyond that its queries raise DatabaseFailure, as for everything else that passes. SQLite has a limit of its own.
    """
    with new_session() as session:
        dialect = session.get_bind().dialect.name
        if dialect == "postgresql":
            # The second is for the others: a host that freezes within a transaction must not keep its locks for hours.
            limits = {"lock_timeout": LOCK_WAIT, "idle_in_transaction_session_timeout": FROZEN_AFTER}
            session.execute(select(*(func.set_config(name, f"{limit}s", True) for name, limit in limits.items())))
        elif dialect == "mysql":
            session.execute(text(f"SET SESSION innodb_lock_wait_timeout = {LOCK_WAIT}"))
        try:
            yield session
        finally:
            if dialect == "mysql" and session.is_active:
                # The connection goes back to a pool that others use.
                session.flush()
                session.execute(text("SET SESSION innodb_lock_wait_timeout = DEFAULT"))


@contextmanager
def new_session() -> Iterator[Session]:
    """Yield a session that commits at the end, or rolls back on an exception."""
    try:
        with create_session(scoped=False) as session:
            yield session
    except NoConnection as error:
        # To whoever asks the database, one that has no connection left is one that is away.
        raise OperationalError("connect", None, error) from None
