"""What the lines of the log are about: the job or heartbeat that the running asyncio task has in hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from edge_otel.telemetry import names
from edge_otel.telemetry.context import Carrier
from edge_worker.journal import Ticket


@dataclass(frozen=True)
class Subject:
    """A trace context, and attributes for every log record."""

    carrier: Carrier = field(default_factory=dict)
    attributes: Mapping[str, str | int] = field(default_factory=dict)


_current: ContextVar[Subject] = ContextVar("subject", default=Subject())  # noqa: B039 - it is frozen


def current() -> Subject:
    """Return the subject of the running task; an empty one outside of any."""
    return _current.get()


@contextmanager
def of_job(ticket: Ticket) -> Iterator[None]:
    """Have a job be the subject of what is done within, and of the tasks that are started there."""
    before = _current.set(Subject(ticket.span, job_attributes(ticket)))
    try:
        yield
    finally:
        _current.reset(before)


def is_heartbeat(carrier: Carrier) -> None:
    """Make a heartbeat, or a registration, the subject of this task."""
    _current.set(Subject(carrier))


def job_attributes(ticket: Ticket) -> dict[str, str | int]:
    """Return what tells a job from all others."""
    return {
        names.QUEUE: ticket.queue,
        names.JOB_ID: ticket.id,
        names.DAG_ID: ticket.dag_id,
        names.TASK_ID: ticket.task_id,
        names.RUN_ID: ticket.run_id,
        names.MAP_INDEX: ticket.map_index,
        names.TRY_NUMBER: ticket.try_number,
    }
