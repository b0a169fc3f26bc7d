"""Queries on jobs. Each takes a session and, where time matters, ``now``; none commits."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session, load_only

from edge_otel.models import tries
from edge_otel.models.session import prepare_lock
from edge_otel.models.tables import Job, Log, Worker
from edge_otel.models.wakeup import announce_jobs
from edge_otel.state import FINISHED, JobState, Verdict, judge

_ID_BATCH = 500
"""Most ids in one IN list: SQLite and MySQL take more, but plan long lists badly."""
HOLDERS_KEPT = 20
"""Earlier claims of a job whose logs may still come: a sensor that is rescheduled has thousands."""


@dataclass(frozen=True)
class NewJob:
    """A workload as the executor queues it; the fields are those of the table."""

    id: str
    kind: str
    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int
    queue: str
    slots: int
    urgency: int
    priority: int
    team: str | None
    workload: str
    carrier: dict[str, Any]
    log_path: str | None


class JobChange(NamedTuple):
    """Where a job stands, as an executor wants to know it."""

    id: str
    state: str
    worker: str | None
    error: str | None
    changed_at: datetime


_CHANGE = (Job.id, Job.state, Job.worker, Job.error, Job.changed_at)


def queue(session: Session, new: NewJob, now: datetime) -> None:
    """Put a job in the queue; one with the same id (a task that was deferred and resumes) starts over.

    Its claim number goes on rising, so that whoever held the job before is stale. One whose log belongs elsewhere is
    another try: the earlier one is set aside.
    """
    job = lock(session, new.id)
    if job is None:
        # Its log may still be here: the job of a task that was deferred for long is gone.
        job = Job(id=new.id, claim=tries.last_claim(session, new.id), holders={}, log_ends={})
        log = session.get(Log, new.id)
        if log is not None and log.path != new.log_path:
            tries.move_log(session, new.id, str(uuid4()))
        session.add(job)
    elif job.log_path != new.log_path:
        tries.set_aside(session, job, now)
    else:
        keep_holder(job)
    for name, value in vars(new).items():
        setattr(job, name, value)
    job.state = JobState.QUEUED
    job.queued_at = job.changed_at = now
    job.assigned_at = job.offer_expires_at = job.accepted_at = job.ended_at = None
    job.exit_code = job.error = None
    job.log_complete = False
    announce_jobs(session)


def keep_holder(job: Job) -> None:
    """Remember who has run a locked job under its claim, which ends: the rest of that log may still come."""
    if job.accepted_at is not None and job.worker is not None:
        job.holders = dict([*job.holders.items(), (str(job.claim), job.worker)][-HOLDERS_KEPT:])
        job.log_ends = {claim: end for claim, end in job.log_ends.items() if claim in job.holders}


def claim_next(
    session: Session,
    worker: Worker,
    *,
    queues: Collection[str] | None,
    free_slots: int,
    kinds: Collection[str],
    now: datetime,
    offer_timeout: timedelta,
) -> Job | None:
    """Claim the job that this worker should run next, or return None.

    Rows that another server is claiming are passed over. Where the database cannot lock rows (SQLite), the guarded
    update decides.
    """
    wanted: list[ColumnElement[bool]] = [
        Job.state == JobState.QUEUED,
        Job.slots <= free_slots,
        Job.kind.in_(kinds),
        Job.team.is_not_distinct_from(worker.team),
    ]
    if queues is not None:
        wanted.append(Job.queue.in_(queues))
    next_job = (
        select(Job)
        .where(*wanted)
        .order_by(Job.urgency, Job.priority.desc(), Job.queued_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    while (job := session.scalar(next_job)) is not None:
        claimed = session.execute(
            update(Job)
            .where(Job.id == job.id, Job.state == JobState.QUEUED, Job.claim == job.claim)
            .values(
                state=JobState.ASSIGNED,
                claim=Job.claim + 1,
                worker=worker.name,
                assigned_at=now,
                offer_expires_at=now + offer_timeout,
                changed_at=now,
            )
            .execution_options(synchronize_session=False)
        )
        if _rows(claimed):
            session.refresh(job)
            return job
    return None


def lock(session: Session, job_id: str, claim: int | None = None) -> Job | None:
    """Return the job, locked until the transaction ends; with ``claim``, that of the try which this was given for."""
    prepare_lock(session, Job)
    query = select(Job).with_for_update().execution_options(populate_existing=True)
    job = session.scalar(query.where(Job.id == job_id))
    if claim is None or tries.is_of(job, claim):
        return job
    key = tries.of_claims(session, [(job_id, claim)]).get((job_id, claim))
    return job if key is None else session.scalar(query.where(Job.id == key))


def id_at(
    session: Session,
    dag_id: str,
    task_id: str,
    run_id: str,
    try_number: int,
    map_index: int,
    *,
    known_as: str | None = None,
) -> str | None:
    """Return the id of the newest job with these coordinates; with ``known_as``, of an earlier try that is named so."""
    query = select(Job.id).where(
        Job.dag_id == dag_id,
        Job.task_id == task_id,
        Job.run_id == run_id,
        Job.try_number == try_number,
        Job.map_index == map_index,
    )
    if known_as is not None:
        query = query.where(Job.known_as == known_as)
    return session.scalar(query.order_by(Job.queued_at.desc()).limit(1))


def record_report(
    job: Any,
    reported: JobState,
    claim: int,
    now: datetime,
    *,
    exit_code: int | None = None,
    error: str | None = None,
    log_length: int | None = None,
    log_sha256: str | None = None,
) -> Verdict:
    """Apply a worker's report to a locked row (or an object with its columns), and return what became of it.

    How long the log is only the worker knows: that counts also where the job was settled in the worker's place, and
    where it has gone on under another claim, and anew where the worker has lost bytes after it had said so.
    """
    verdict = judge(JobState(job.state), job.claim, reported, claim)
    known = verdict is not Verdict.STALE or str(claim) in job.holders
    end = [log_length, log_sha256]
    news = str(claim) not in job.log_ends or (log_length is not None and job.log_ends[str(claim)] != end)
    if known and reported in FINISHED and news:
        job.log_ends = {**job.log_ends, str(claim): end}
        job.log_complete = False
        if verdict is Verdict.REPEATED:
            job.exit_code = exit_code
    if verdict is not Verdict.STORED:
        return verdict
    job.state, job.changed_at = reported, now
    if reported is JobState.RUNNING:
        job.accepted_at = now
    elif reported in FINISHED:
        job.ended_at = now
        job.exit_code, job.error = exit_code, error
    return verdict


def changed_since(session: Session, team: str | None, since: datetime) -> list[JobChange]:
    """Return the team's jobs that changed at or after ``since``."""
    query = select(*_CHANGE).where(Job.changed_at >= since, Job.team.is_not_distinct_from(team))
    return [JobChange(*row) for row in session.execute(query)]


def with_ids(session: Session, ids: Collection[str]) -> list[JobChange]:
    """Return the jobs with these ids, of those that exist."""
    found = []
    for batch in batches(ids):
        found += [JobChange(*row) for row in session.execute(select(*_CHANGE).where(Job.id.in_(batch)))]
    return found


def with_log_to_write(session: Session, after: str, limit: int) -> list[Job]:
    """Return the next jobs, after this id, that are finished and whose log is not where Airflow reads it: with the
    columns alone that ``logs.missing`` reads."""
    columns = load_only(Job.claim, Job.worker, Job.holders, Job.log_ends, Job.accepted_at, raiseload=True)
    query = (
        select(Job)
        .options(columns)
        .where(Job.id > after, Job.state.in_(FINISHED), Job.log_complete.is_(False), Job.log_path.is_not(None))
        .order_by(Job.id)
        .limit(limit)
    )
    return list(session.scalars(query))


def callbacks(session: Session, team: str | None) -> list[JobChange]:
    """Return the team's callbacks, for a scheduler that starts: nobody else would tell Airflow what became of them."""
    query = select(*_CHANGE).where(Job.kind == "callback", Job.team.is_not_distinct_from(team))
    return [JobChange(*row) for row in session.execute(query)]


def batches(ids: Collection[str]) -> Iterator[list[str]]:
    todo = list(ids)
    for start in range(0, len(todo), _ID_BATCH):
        yield todo[start : start + _ID_BATCH]


def _rows(result: Any) -> int:
    count: CursorResult[Any] = result
    return count.rowcount
