"""Many workers' reports on their jobs, in one transaction. Nothing here commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session, load_only

from edge_otel.models.jobs import batches, record_report
from edge_otel.models.session import prepare_lock
from edge_otel.models.tables import Job
from edge_otel.state import JobState, Verdict
from edge_otel.wire import JobOutcome


@dataclass(frozen=True)
class Report:
    """A worker's word on one claim of a job: running (it accepts), queued (it declines), success or failed."""

    worker: str
    job_id: str
    claim: int
    state: JobState
    outcome: JobOutcome | None = None


_NEEDED = load_only(
    Job.state,
    Job.claim,
    Job.worker,
    Job.changed_at,
    Job.accepted_at,
    Job.ended_at,
    Job.exit_code,
    Job.error,
    Job.log_length,
    Job.log_sha256,
    Job.log_complete,
)


def record_all(session: Session, reports: Sequence[Report], now: datetime) -> list[Verdict]:
    """Apply the reports in their order and return what became of each. A job of another worker's is stale."""
    prepare_lock(session, Job)
    jobs: dict[str, Job] = {}
    # In the order of their ids: two servers that lock the same rows never wait for each other in a circle.
    for batch in batches(sorted({report.job_id for report in reports})):
        query = select(Job).where(Job.id.in_(batch)).order_by(Job.id).with_for_update().options(_NEEDED)
        jobs |= {job.id: job for job in session.scalars(query.execution_options(populate_existing=True))}
    return [_record(jobs.get(report.job_id), report, now) for report in reports]


def _record(job: Job | None, report: Report, now: datetime) -> Verdict:
    if job is None or job.worker != report.worker:
        return Verdict.STALE
    outcome = (report.outcome or JobOutcome()).model_dump(include=set(JobOutcome.model_fields))
    return record_report(job, report.state, report.claim, now, **outcome)
