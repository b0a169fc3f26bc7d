"""Queries that take care of jobs which their workers do not: offers not accepted, jobs of the dead, old rows. None
commits, and none waits for a row that somebody else has locked."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, delete, or_, select, update
from sqlalchemy.orm import Session

from edge_otel.models import log_sinks
from edge_otel.models.jobs import batches, keep_holder, lock
from edge_otel.models.session import prepare_lock
from edge_otel.models.tables import Job, Worker
from edge_otel.models.wakeup import announce_jobs, announce_worker
from edge_otel.reconcile import RunningJob
from edge_otel.state import FINISHED, GONE, JobState, WorkerState
from edge_otel.wire import stopped_after

PURGE_LIMIT = 1000
"""Most rows that one purge removes, so that it never holds the scheduler's loop."""
INCOMPLETE_LOG_KEPT = timedelta(days=1)
"""How much longer a job is kept whose log could not be written yet: the last copy may be the one in the database."""


class UnreportedJob(NamedTuple):
    """A running job that its worker may never report."""

    id: str
    kind: str
    claim: int
    changed_at: datetime
    worker_state: str | None
    state_since: datetime | None
    last_heartbeat: datetime | None
    sysinfo: dict[str, Any] | None

    def with_task(self, state: str | None, ended_at: datetime | None) -> RunningJob:
        """Return the job with what Airflow says of its task."""
        gone = self.worker_state is None or WorkerState(self.worker_state) in GONE
        promise = stopped_after(self.sysinfo or {})
        times = ended_at, self.last_heartbeat, self.state_since if gone else None
        return RunningJob(self.changed_at, self.kind == "task", gone, state, *times, promise)


class SettledJob(NamedTuple):
    """A job that was ended in its worker's place, as it was before; the names are those of the table."""

    id: str
    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int
    queue: str
    carrier: dict[str, Any]
    claim: int
    worker: str | None
    changed_at: datetime


_SETTLED = tuple(getattr(Job, name) for name in SettledJob._fields)


def return_expired_offers(session: Session, team: str | None, now: datetime) -> int:
    """Put jobs back in the queue whose offer nobody accepted in time; return how many."""
    return len(_return(session, now, Job.offer_expires_at < now, Job.team.is_not_distinct_from(team)))


def return_offers_of(session: Session, worker: str, kept: Collection[tuple[str, int]], now: datetime) -> list[str]:
    """Put the worker's unaccepted jobs back in the queue, but for those (id, claim) that it still knows; return the
    queue of each."""
    offered = select(Job.id, Job.claim, Job.queue).where(Job.state == JobState.ASSIGNED, Job.worker == worker)
    # What the worker knows may be long, what it was offered is not.
    known = set(kept)
    returning = {job_id: queue for job_id, claim, queue in session.execute(offered) if (job_id, claim) not in known}
    return [returning[job_id] for batch in batches(returning) for job_id in _return(session, now, Job.id.in_(batch))]


def _return(session: Session, now: datetime, *which: ColumnElement[bool]) -> list[str]:
    offers = _unlocked(session, Job.state == JobState.ASSIGNED, *which)
    for batch in batches(offers):
        query = update(Job).where(Job.id.in_(batch)).values(state=JobState.QUEUED, changed_at=now)
        session.execute(query.execution_options(synchronize_session=False))
    if offers:
        announce_jobs(session)
    return offers


def _unlocked(session: Session, *which: ColumnElement[bool]) -> list[str]:
    """Return the ids of these jobs, locked, without those that another transaction has.

    Who takes care of many jobs at once must not wait for one: two that wait for each other are deadlocked. What is
    passed over is found the next time.
    """
    prepare_lock(session, Job)
    return list(session.scalars(select(Job.id).where(*which).with_for_update(skip_locked=True)))


def running_unreported(session: Session, team: str | None, quiet_since: datetime) -> list[UnreportedJob]:
    """Return the running jobs whose worker is gone, or that did not change since ``quiet_since``."""
    of_worker = Worker.state, Worker.state_since, Worker.last_heartbeat, Worker.sysinfo
    query = (
        select(Job.id, Job.kind, Job.claim, Job.changed_at, *of_worker)
        .outerjoin(Worker, Worker.name == Job.worker)
        .where(
            Job.state == JobState.RUNNING,
            Job.team.is_not_distinct_from(team),
            or_(Worker.name.is_(None), Worker.state.in_(GONE), Job.changed_at < quiet_since),
        )
    )
    return [UnreportedJob(*row) for row in session.execute(query)]


def settle(session: Session, job_id: str, claim: int, state: JobState, error: str, now: datetime) -> SettledJob | None:
    """End a running job in its worker's place, and return it; None if it changed meanwhile, or is changing now."""
    prepare_lock(session, Job)
    query = select(*_SETTLED).where(Job.id == job_id, Job.claim == claim, Job.state == JobState.RUNNING)
    found = session.execute(query.with_for_update(skip_locked=True)).first()
    if found is None:
        return None
    ended = update(Job).where(Job.id == job_id).values(state=state, ended_at=now, changed_at=now, error=error)
    session.execute(ended.execution_options(synchronize_session=False))
    _announce_holder(session, job_id)
    return SettledJob(*found)


def lose_forgotten(
    session: Session, worker: str, known: Collection[tuple[str, int]], now: datetime
) -> list[SettledJob]:
    """End the worker's running callbacks and connection tests but for those (id, claim) that it still knows, and return
    them: nobody else would tell of their end, as Airflow does of a task's."""
    running = select(Job.id, Job.claim).where(Job.state == JobState.RUNNING, Job.worker == worker, Job.kind != "task")
    forgotten = {(job_id, claim) for job_id, claim in session.execute(running)} - set(known)
    why = f"The edge worker {worker} came back without this job: its folder was lost, or another daemon has the name."
    lost = [settle(session, job_id, claim, JobState.LOST, why, now) for job_id, claim in sorted(forgotten)]
    return [job for job in lost if job is not None]


def withdraw(session: Session, job_id: str, now: datetime) -> None:
    """End a job that nobody wants any more. Its claim rises, so a worker that has it stops it as stale; and the row
    stays for a while, so that the number is not given again should the task come back under the same id."""
    job = lock(session, job_id)
    if job is not None and job.state not in FINISHED:
        keep_holder(job)
        job.state, job.revoked, job.claim, job.error = JobState.LOST, job.claim, job.claim + 1, "Revoked."
        job.accepted_at, job.ended_at, job.changed_at = None, now, now
        session.flush()
    _announce_holder(session, job_id)


def _announce_holder(session: Session, job_id: str) -> None:
    holder = session.scalar(select(Job.worker).where(Job.id == job_id))
    if holder is not None:
        announce_worker(session, holder)


def outdated(session: Session, team: str | None, succeeded_before: datetime, failed_before: datetime) -> list[str]:
    """Return the ids of finished jobs that ended before these times, at most PURGE_LIMIT of them.

    A job whose log is not where Airflow reads it yet is kept for INCOMPLETE_LOG_KEPT longer than one that failed.
    """
    log_is_there = or_(Job.log_complete.is_(True), Job.log_path.is_(None))
    query = (
        select(Job.id)
        .where(
            Job.team.is_not_distinct_from(team),
            or_(
                and_(Job.state == JobState.SUCCESS, log_is_there, Job.changed_at < succeeded_before),
                and_(Job.state.in_(FINISHED), log_is_there, Job.changed_at < failed_before),
                and_(Job.state.in_(FINISHED), Job.changed_at < failed_before - INCOMPLETE_LOG_KEPT),
            ),
        )
        .order_by(Job.changed_at)
        .limit(PURGE_LIMIT)
    )
    return list(session.scalars(query))


def keep(session: Session, ids: Collection[str], now: datetime) -> None:
    """Begin the time anew for which these finished jobs are kept: their tasks will come back under the same id."""
    for batch in batches(ids):
        finished = _unlocked(session, Job.id.in_(batch), Job.state.in_(FINISHED))
        query = update(Job).where(Job.id.in_(finished)).values(changed_at=now)
        session.execute(query.execution_options(synchronize_session=False))


def delete_finished(session: Session, ids: Collection[str], now: datetime) -> None:
    """Delete finished jobs; their logs have a time of their own."""
    for batch in batches(ids):
        finished = _unlocked(session, Job.id.in_(batch), Job.state.in_(FINISHED))
        log_sinks.orphan(session, finished, now)
        session.execute(delete(Job).where(Job.id.in_(finished)).execution_options(synchronize_session=False))
