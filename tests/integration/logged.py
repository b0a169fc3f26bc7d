"""Jobs that log, as the store has them once requests and the writer of files are done with them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from rows import claim, queue_job, register
from sqlalchemy import update

from edge_otel.models import jobs, logs
from edge_otel.models.tables import Log, Worker
from edge_otel.state import JobState

TRACE, SPAN = "1" * 32, "2" * 16


class Task:
    """A job that worker ``w`` runs."""

    def __init__(self, database, text=b"", *, ends=False, **fields):
        self._database = database
        fields = {"log_path": f"dag_id=d/run_id=r/task_id=t/{uuid4()}/attempt=1.log", **fields}
        self.path = fields["log_path"]
        with database() as session:
            now = datetime.now(UTC)
            worker = session.get(Worker, "w") or register(session, "w", now)
            carrier = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
            self.id = queue_job(session, now, carrier=carrier, **fields)
            job = claim(session, worker, now)
            jobs.record_report(job, JobState.RUNNING, job.claim, now)
        self.sent = b""
        if text:
            self.log(text)
        if ends:
            self.end()

    def log(self, text):
        """Append to its log."""
        with self._database() as session:
            logs.append(session, jobs.lock(session, self.id, 1), 1, len(self.sent), text)
        self.sent += text

    def end(self):
        """End it, as the API does once the file stands."""
        with self._database() as session:
            job = jobs.lock(session, self.id, 1)
            now = datetime.now(UTC)
            jobs.record_report(job, JobState.SUCCESS, 1, now, log_length=len(self.sent))
            job.log_complete = True
            logs.mark_whole(session, job.id, now)

    def try_again(self):
        """Let the next try begin under its id, which has nothing to do with this object."""
        with self._database() as session:
            now = datetime.now(UTC)
            self.next_path = self.path.replace("attempt=1", "attempt=2")
            queue_job(session, now, id=self.id, log_path=self.next_path, try_number=2)
            job = claim(session, session.get(Worker, "w"), now)
            jobs.record_report(job, JobState.RUNNING, job.claim, now)
            logs.append(session, job, job.claim, 0, b"another try\n")
            jobs.record_report(job, JobState.SUCCESS, job.claim, now, log_length=12)
            job.log_complete = True
            logs.mark_whole(session, self.id, now)

    @property
    def row(self):
        """The row of its log."""
        with self._database() as session:
            row = session.get(Log, self.id)
            session.expunge(row)
            return row

    def hurry(self):
        """Let the time pass for which it must wait until it is uploaded."""
        with self._database() as session:
            past = datetime.now(UTC) - timedelta(seconds=1)
            session.execute(update(Log).where(Log.job_id == self.id).values(upload_at=past))
