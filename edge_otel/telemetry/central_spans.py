"""The spans of the central side: what executor and API say of jobs and heartbeats, from facts that they have anyway."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from edge_otel.state import JobState, WorkerState
from edge_otel.telemetry import context, names
from edge_otel.telemetry.context import Carrier
from edge_otel.telemetry.spans import Finished, Values


class Job(Protocol):
    """What every span of a job says of it: the names are those of the table."""

    @property
    def id(self) -> str: ...
    @property
    def dag_id(self) -> str: ...
    @property
    def task_id(self) -> str: ...
    @property
    def run_id(self) -> str: ...
    @property
    def map_index(self) -> int: ...
    @property
    def try_number(self) -> int: ...
    @property
    def queue(self) -> str: ...
    @property
    def carrier(self) -> Mapping[str, Any]: ...


class Held(Job, Protocol):
    """A job that a worker holds."""

    @property
    def worker(self) -> str | None: ...
    @property
    def claim(self) -> int: ...
    @property
    def changed_at(self) -> datetime: ...


class Report(Protocol):
    """What a worker says of itself."""

    @property
    def state(self) -> WorkerState: ...
    @property
    def jobs_active(self) -> int: ...


def sent(job: Job, start: datetime, end: datetime) -> Finished:
    """Return the span of a job that was put in the table."""
    return _of_job(names.SEND, job, start, end, {names.OPERATION_TYPE: "send"})


def queued(job: Job, worker: str, claim: int, start: datetime, end: datetime) -> Finished:
    """Return the span of a job that waited until it was assigned to a worker under this claim."""
    duration = max(0.0, (end - start).total_seconds())
    more: Values = {names.WORKER_NAME: worker, names.JOB_CLAIM: claim, names.JOB_QUEUE_DURATION: duration}
    return _of_job(names.QUEUED, job, start, end, more)


def orphaned(job: Held, state: JobState, reason: str, now: datetime, why: str) -> Finished:
    """Return the span of a job that was ended in its worker's place as ``state``, from when it changed last.
    ``reason``: one of those of names.ORPHAN_REASON."""
    more: Values = {
        names.WORKER_NAME: job.worker or "",
        names.JOB_CLAIM: job.claim,
        names.JOB_OUTCOME: "success" if state is JobState.SUCCESS else "lost",
        names.ORPHAN_REASON: reason,
        names.ERROR_TYPE: reason,
    }
    return _of_job(names.ORPHAN, job, job.changed_at, now, more, why)


def heard(report: Report, worker: str, parent: Carrier, start: datetime, end: datetime, error: str = "") -> Finished:
    """Return the span of a heartbeat at the server. ``parent``: the context that came with it; ``error``: why it is
    not stored, as the name of an error."""
    attributes: dict[str, str | int | float] = {
        names.WORKER_NAME: worker,
        names.WORKER_STATE: report.state.value,
        names.JOBS_ACTIVE: report.jobs_active,
    }
    if error:
        attributes[names.ERROR_TYPE] = error
    child = context.child_of(parent)
    return Finished(names.HEARTBEAT_SERVER, child, parent, start.timestamp(), end.timestamp(), attributes)


def _of_job(
    span: names.Span,
    job: Job,
    start: datetime,
    end: datetime,
    more: Values,
    why: str | None = None,
) -> Finished:
    parent = context.valid(dict(job.carrier)) if isinstance(job.carrier, Mapping) else {}
    attributes = {
        names.MESSAGING_SYSTEM: "airflow",
        names.OPERATION_NAME: span.operation,
        names.QUEUE: job.queue,
        names.JOB_ID: job.id,
        names.DAG_ID: job.dag_id,
        names.TASK_ID: job.task_id,
        names.RUN_ID: job.run_id,
        names.MAP_INDEX: job.map_index,
        names.TRY_NUMBER: job.try_number,
        **more,
    }
    return Finished(
        span, context.child_of(parent), parent, start.timestamp(), end.timestamp(), attributes, job.queue, why
    )
