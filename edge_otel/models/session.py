"""Database sessions of our own: never Airflow's scoped one, which its caller may still be using."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.utils.session import create_session
from sqlalchemy.orm import Session

__all__ = ["Session", "new_session"]


@contextmanager
def new_session() -> Iterator[Session]:
    """Yield a session that commits at the end, or rolls back on an exception."""
    with create_session(scoped=False) as session:
        yield session
