"""Remote logs that do not say whether an upload has arrived, or never come to an end with it."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest
from rows import NOW, claim, queue_job, register

from edge_otel.api import log_upload
from edge_otel.models import jobs, logs
from edge_otel.models.tables import Log, Worker
from edge_otel.settings import LogFolder
from edge_otel.state import JobState

P = "a/attempt=1.log"
HERE = f"s3://b/{P}"


@pytest.mark.parametrize(
    ("sources", "found", "before", "expected"),
    [
        ([], None, "", False),
        ([HERE], ["one\ntwo\n"], "", True),
        ([HERE], ["one\r\ntwo"], "", True),
        ([HERE], ["one\n"], "one\n", False),
        ([HERE], ["Could not read logs from there"], "one\n", "unclear"),
        ([HERE], ["Could not read logs from there"], "", "unclear"),
        ([f"{HERE}.trigger.7.log"], ["one\ntwo\n"], "", False),
        ([HERE, f"{HERE}.trigger.7.log"], ["one\n", "one\ntwo\n"], "one\n", False),
        (["somewhere"], ["one\ntwo\n"], "", True),
        (["from host"], [object(), object()], "", "unclear"),
    ],
)
def test_a_remote_log_is_asked_whether_it_has_an_upload(sources, found, before, expected):
    if expected == "unclear":
        with pytest.raises(log_upload._Unclear):
            log_upload.has(sources, found, P, "two\n", before)
    else:
        assert log_upload.has(sources, found, P, "two\n", before) is expected


class HangingSink:
    """A remote log that hangs with its first log until ``go`` is set, and takes others."""

    delete_local_copy = False

    def __init__(self, folder):
        self.base_log_folder = folder
        self.hangs = threading.Event()
        self.go = threading.Event()

    def upload(self, path, ti=None):
        if not self.hangs.is_set():
            self.hangs.set()
            self.go.wait(60)
        (self.base_log_folder / path).unlink()


def written(database, name):
    """Return the id of a job whose log stands in its file."""
    with database() as session:
        worker = session.get(Worker, "w") or register(session, "w", NOW)
        job_id = queue_job(session, NOW, log_path=f"{name}/attempt=1.log")
        job = claim(session, worker, NOW)
        logs.append(session, job, job.claim, 0, b"one\n")
        jobs.record_report(job, JobState.SUCCESS, job.claim, NOW)
        logs.mark_written(session, job_id, NOW)
    return job_id


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_upload_that_never_ends_keeps_others_waiting_only_for_so_long(database, tmp_path, monkeypatch):
    monkeypatch.setattr(log_upload, "PATIENCE", timedelta(seconds=0.3))
    monkeypatch.setattr(log_upload, "LEASE", timedelta(seconds=0.4))
    monkeypatch.setattr(log_upload, "AWAY", 0.1)
    sink = HangingSink(tmp_path)
    uploader = log_upload.Uploader(sink, LogFolder(tmp_path / "logs", 0o755, 0o644))
    written(database, "first")

    def state(job_id):
        with database() as session:
            return session.get(Log, job_id).upload

    async def upload():
        uploader.start()
        try:
            async with asyncio.timeout(30):
                while not sink.hangs.is_set():
                    await asyncio.sleep(0.02)
                second = written(database, "second")
                while state(second) != "done":
                    await asyncio.sleep(0.02)
        finally:
            sink.go.set()
            await uploader.stop()

    asyncio.run(upload())
