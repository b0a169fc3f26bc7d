"""Decisions about rows that nobody reports on any more: pure, from the row and the time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from edge_otel.state import JobState

SILENT_INTERVALS = 5
"""A worker that has not reported for so many of its intervals counts as gone."""

STOPPED_MARGIN = timedelta(seconds=60)
"""How much longer than promised a silent worker's jobs are given to have been stopped."""

_EXECUTING = frozenset({"queued", "running", "restarting"})
_PROCESS_ENDED_WELL = frozenset({"success", "skipped", "deferred", "scheduled", "up_for_reschedule", "awaiting_input"})
_PROCESS_ENDED_BADLY = frozenset({"failed", "up_for_retry", "upstream_failed"})


RETURNS_WITHIN = timedelta(minutes=2)
"""Of a worker that counts as gone, from when it does: while the centre itself is away, however long, all workers are
silent, and come back with their jobs."""


def silent_since(now: datetime, interval: float) -> datetime:
    """Return the time of the last heartbeat before which a worker counts as gone; ``interval`` in seconds."""
    return now - timedelta(seconds=SILENT_INTERVALS * interval)


def settled_by(last_contact: datetime, gone_since: datetime, stopped_after: timedelta | None) -> datetime:
    """Return until when what is known of a worker that is gone decides on its running jobs, with ``stopped_after`` as
    of RunningJob: then they are lost, or end as Airflow says without it."""
    returns_by = max(last_contact, gone_since) + RETURNS_WITHIN
    return returns_by if stopped_after is None else max(returns_by, last_contact + stopped_after + STOPPED_MARGIN)


@dataclass(frozen=True)
class RunningJob:
    """A job whose row says running, with what is known beside it."""

    changed_at: datetime
    is_task: bool
    worker_gone: bool
    task_state: str | None
    """Airflow's state of the task instance with the job's id; None if there is none (any more), or it is no task."""
    task_ended_at: datetime | None
    last_heartbeat: datetime | None = None
    """The worker's; None without a worker."""
    gone_since: datetime | None = None
    """When the worker was last taken for gone, or left; None where that is not known."""
    stopped_after: timedelta | None = None
    """The silence after which the worker has promised to have stopped its jobs; None where it keeps them."""


def outcome(job: RunningJob, now: datetime, grace: timedelta) -> JobState | None:
    """Return the final state of a job that its worker does not report, or None while there is reason to wait.

    Airflow's own account of the task decides. While it says that the task runs, Airflow's heartbeat timeout is what
    ends it: a worker that is merely cut off finishes its job, unless it has promised to have stopped it by now.
    """
    if not job.is_task:
        return JobState.LOST if _silent(job, now) else None
    if job.task_state == "queued" and _silent(job, now):
        # Accepted, but the worker went before the process reached Airflow.
        return JobState.LOST
    if job.task_state in _EXECUTING:
        return JobState.LOST if job.worker_gone and _stopped(job, now) else None
    if not job.worker_gone and now - max(job.changed_at, job.task_ended_at or job.changed_at) < grace:
        # The worker is there: its own report, with the exit code, is on the way.
        return None
    if job.task_state in _PROCESS_ENDED_WELL:
        return JobState.SUCCESS
    return JobState.FAILED if job.task_state in _PROCESS_ENDED_BADLY else JobState.LOST


def explain(job: RunningJob) -> str:
    """Return in words why a job was ended in its worker's place."""
    if job.worker_gone and job.task_state in ("running", "restarting"):
        return "The edge worker is cut off, and has stopped the task by now, as its policy says."
    return f"The edge worker did not report the end of this job; Airflow says: {job.task_state or 'gone'}."


def _silent(job: RunningJob, now: datetime) -> bool:
    # Each is of another host's clock.
    last = max(time for time in (job.gone_since, job.last_heartbeat, job.changed_at) if time is not None)
    return job.worker_gone and now - last > RETURNS_WITHIN


def _stopped(job: RunningJob, now: datetime) -> bool:
    if job.stopped_after is None or job.last_heartbeat is None:
        return False
    if job.gone_since is not None and now - job.gone_since <= STOPPED_MARGIN:
        # While the database was away it may have been heard, and kept its jobs: that is about to be written.
        return False
    # A job that was accepted after the last heartbeat that is known is one more contact.
    return now - max(job.last_heartbeat, job.changed_at) > job.stopped_after + STOPPED_MARGIN
