"""Many workers' reports on their jobs, in one transaction. Nothing here commits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any, NamedTuple

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import Session

from edge_otel.models import tries
from edge_otel.models.jobs import batches, record_report
from edge_otel.models.session import prepare_lock
from edge_otel.models.tables import Job
from edge_otel.models.wakeup import announce_jobs
from edge_otel.state import FINISHED, JobState, Verdict
from edge_otel.wire import JobOutcome


@dataclass(frozen=True)
class Report:
    """A worker's word on one claim of a job: running (it accepts), queued (it declines), success or failed."""

    worker: str
    job_id: str
    claim: int
    state: JobState
    outcome: JobOutcome = field(default_factory=JobOutcome)
    why: str = ""
    """Of queued: declined, disconnected, or no_room."""


class Recorded(NamedTuple):
    """What became of a report."""

    verdict: Verdict | None
    """None: somebody else has the row locked, so nothing was done yet."""
    log_to_write: str = ""
    """The key of the job, if it has ended and its log is not where Airflow reads it."""
    queue: str = ""
    """The job's; empty where it is gone, and so are the next two."""
    carrier: dict[str, str] = {}  # noqa: RUF012 - a NamedTuple's default
    ran: float | None = None
    """Seconds from its acceptance to its end."""


_CHANGEABLE = (
    "state",
    "changed_at",
    "accepted_at",
    "ended_at",
    "exit_code",
    "error",
    "log_ends",
    "log_complete",
)
_READ = [
    getattr(Job, name) for name in ("id", "claim", "worker", "holders", "queue", "carrier", "log_path", *_CHANGEABLE)
]


def record_all(session: Session, reports: Sequence[Report], now: datetime) -> list[Recorded]:
    """Apply the reports in their order and return what became of each. A job of another worker's is stale.

    Rows that another transaction has locked are not waited for: two that wait for each other are deadlocked.
    """
    jobs, busy = _locked(session, {report.job_id for report in reports})
    strays = {
        (report.job_id, report.claim)
        for report in reports
        if report.job_id not in busy and not tries.is_of(jobs.get(report.job_id), report.claim)
    }
    earlier = tries.of_claims(session, strays)
    jobs_of_tries, busy_tries = _locked(session, set(earlier.values()))
    jobs |= jobs_of_tries
    busy |= busy_tries
    before = {job_id: SimpleNamespace(**vars(job)) for job_id, job in jobs.items()}
    recorded = []
    for report in reports:
        key = earlier.get((report.job_id, report.claim), report.job_id)
        recorded.append(Recorded(None) if key in busy else _record(jobs.get(key), report, now))
    _write(session, [(before[job.id], job) for job in jobs.values() if job != before[job.id]], now)
    return recorded


def _locked(session: Session, ids: Collection[str]) -> tuple[dict[str, Any], set[str]]:
    """Return the jobs with these ids, locked; and the ids of those that another transaction has."""
    jobs: dict[str, Any] = {}
    busy: set[str] = set()
    prepare_lock(session, Job)
    for batch in batches(ids):
        query = select(*_READ).where(Job.id.in_(batch)).with_for_update(skip_locked=True)
        found = {row.id: SimpleNamespace(**row._mapping) for row in session.execute(query)}
        jobs |= found
        if len(found) < len(batch):
            missing = [job_id for job_id in batch if job_id not in found]
            busy.update(session.scalars(select(Job.id).where(Job.id.in_(missing))))
    return jobs, busy


def _record(job: Any, report: Report, now: datetime) -> Recorded:
    if job is None:
        return Recorded(Verdict.STALE)
    if report.worker != (job.worker if report.claim == job.claim else job.holders.get(str(report.claim))):
        return Recorded(Verdict.STALE, queue=job.queue)
    outcome = {name: getattr(report.outcome, name) for name in JobOutcome.model_fields}
    verdict = record_report(job, report.state, report.claim, now, **outcome)
    to_write = job.state in FINISHED and job.log_path is not None and not job.log_complete
    return Recorded(verdict, job.id if to_write else "", job.queue, job.carrier, ran(job))


def ran(job: Any) -> float | None:
    """Return the seconds from the job's acceptance to its end, where it had both."""
    if job.accepted_at is None or job.ended_at is None:
        return None
    seconds: float = (job.ended_at - job.accepted_at).total_seconds()
    return seconds


def _write(session: Session, changed: Iterable[tuple[Any, Any]], now: datetime) -> None:
    """Write rows, given as they were and as they are: one statement for all that were accepted, one for all that are
    back in the queue."""
    ids: dict[str, list[str]] = {}
    ended = []
    for was, job in changed:
        if job.state in FINISHED:
            ended.append({"job_id": job.id, **{name: getattr(job, name) for name in _CHANGEABLE}})
            continue
        if job.state != was.state:
            ids.setdefault(job.state, []).append(job.id)
        if job.log_ends != was.log_ends:
            # Of an earlier claim.
            query = update(Job).where(Job.id == job.id).values(log_ends=job.log_ends)
            session.execute(query.execution_options(synchronize_session=False))
    for state, of_state in ids.items():
        accepted = {"accepted_at": now} if state == JobState.RUNNING else {}
        for batch in batches(of_state):
            query = update(Job).where(Job.id.in_(batch)).values(state=state, changed_at=now, **accepted)
            session.execute(query.execution_options(synchronize_session=False))
    if ended:
        query = update(Job.__table__).where(Job.id == bindparam("job_id"))  # type: ignore[arg-type]
        session.connection().execute(query.values({name: bindparam(name) for name in _CHANGEABLE}), ended)
    if JobState.QUEUED in ids:
        announce_jobs(session)
