"""Tries of a task under one id, as the API and a worker see them."""

from __future__ import annotations

from datetime import timedelta

from rows import NOW, claim, queue_job, register

from edge_otel.api.log_sweep import Sweep
from edge_otel.models import jobs, logs, upkeep
from edge_otel.models.reports import Report, record_all
from edge_otel.models.tables import Worker
from edge_otel.state import JobState
from edge_otel.wire import JobOutcome

PATHS = [f"dag_id=dag/run_id=run/task_id=task/attempt={number}.log" for number in (0, 1, 2, 3)]
HERE = logs.Homes()


class Tries:
    """A task whose tries have one id, whose worker is ``w``."""

    def __init__(self, database, api, token):
        self._database, self._api, self._token = database, api, token
        with database() as session:
            register(session, "w", NOW)
        self.id = None

    def run(self, number, text=b""):
        """Let the worker begin this try, which logs so much at once; return its claim."""
        self.queue(number)
        with self._database() as session:
            job = claim(session, session.get(Worker, "w"), NOW)
            jobs.record_report(job, JobState.RUNNING, job.claim, NOW)
            given = job.claim
        if text:
            assert self.send(given, 0, text).status_code == 202
        return given

    def queue(self, number):
        """Let Airflow queue this try."""
        with self._database() as session:
            known = {"id": self.id} if self.id else {}
            carrier = {"traceparent": f"00-{number:032}-{number:016}-01"}
            self.id = queue_job(session, NOW, log_path=PATHS[number], try_number=number, carrier=carrier, **known)

    def lose(self, claim):
        """Let the executor give up what runs under this claim."""
        with self._database() as session:
            assert upkeep.settle(session, self.id, claim, JobState.LOST, "The worker is gone.", NOW)

    def send(self, claim, first, text):
        """Send bytes as the worker does; return the answer."""
        headers = {"X-Claim": str(claim), "Content-Range": f"bytes {first}-{first + len(text) - 1}/*"}
        return self._api.call("PATCH", f"/v2/jobs/{self.id}/log", self._token, data=text, headers=headers)

    def stored(self, claim):
        """Return the server's cursor."""
        answer = self._api.call("HEAD", f"/v2/jobs/{self.id}/log", self._token, headers={"X-Claim": str(claim)})
        assert answer.status_code == 200
        return answer.headers["Range"]

    def end(self, claim, length):
        """Tell the end of what ran under this claim, as a worker does over its channel."""
        report = Report("w", self.id, claim, JobState.FAILED, JobOutcome(log_length=length))
        with self._database() as session:
            (told,) = record_all(session, [report], NOW)
        if told.log_to_write:
            self._api.app.state.log_writer.finalise(told.log_to_write)
        return told

    def sweep(self, homes=HERE):
        """Return what takes care of the logs."""
        return Sweep(self._api.app.state.log_writer, homes, timedelta())

    def files(self):
        """Return what is in Airflow's log folder, by try; and what is said beside a log."""
        found = self._api.logs.rglob("attempt=*")
        return {path.name.removeprefix("attempt=").removesuffix(".log"): path.read_bytes() for path in found}
