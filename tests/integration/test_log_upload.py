"""Finished logs in a real S3, by Airflow's own remote log: each once, whatever happens to the API and to S3."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import airflow_rows
import pytest
from airflow.models.taskinstance import TaskInstance
from remote_s3 import S3, environment
from replicas import Replicas
from rows import claim, queue_job, register
from s3_environment import s3_packages
from sqlalchemy import update

from demo.process import free_port
from demo.wait import wait_for as wait_long_for
from edge_otel.models import jobs, logs
from edge_otel.models.tables import Log, Worker
from edge_otel.state import JobState

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture(scope="module")
def port():
    """The port of an S3."""
    return free_port()


@pytest.fixture(scope="module")
def s3(port, tmp_path_factory):
    """An S3."""
    s3 = S3(port, tmp_path_factory.mktemp("s3"))
    yield s3
    s3.stop()


@pytest.fixture(scope="module")
def forker():
    """Starts the API with Airflow's Amazon provider."""
    replicas = Replicas(s3_packages())
    yield replicas
    replicas.stop()


@pytest.fixture
def start(forker, database_url, database, port):
    """Starts the API with S3 as its remote log."""
    started = []

    def start(folder="s3://bucket/logs", port=port, **options):
        started.append(forker.start(database_url, env=environment(port, folder), **options))
        return started[-1]

    yield start
    for replica in started:
        replica.kill()


class Task:
    """A job of worker ``w`` that has ended."""

    def __init__(self, database, text=b"one\ntwo\n", *, ends=True):
        self._database = database
        self.path = f"dag_id=d/run_id=r/task_id=t/{uuid4()}/attempt=1.log"
        with database() as session:
            now = datetime.now(UTC)
            worker = session.get(Worker, "w") or register(session, "w", now)
            self.id = queue_job(session, now, log_path=self.path)
            job = claim(session, worker, now)
            jobs.record_report(job, JobState.RUNNING, job.claim, now)
        self.sent = b""
        self.log(text)
        if ends:
            self.end()

    def log(self, text):
        """Append to its log."""
        with self._database() as session:
            logs.append(session, jobs.lock(session, self.id), 1, len(self.sent), text)
        self.sent += text

    def end(self):
        """End it, as the API does once the file stands."""
        with self._database() as session:
            job = jobs.lock(session, self.id)
            jobs.record_report(job, JobState.SUCCESS, 1, datetime.now(UTC))
            job.log_complete = True
            logs.mark_written(session, self.id, datetime.now(UTC))

    @property
    def row(self):
        """The row of its log."""
        with self._database() as session:
            row = session.get(Log, self.id)
            session.expunge(row)
            return row

    def hurry(self):
        """Let the time pass that it has to wait."""
        with self._database() as session:
            past = datetime.now(UTC) - timedelta(seconds=1)
            session.execute(update(Log).where(Log.job_id == self.id).values(upload_at=past))


def wait_for(condition):
    """Wait as long as a test may."""
    wait_long_for(condition, "the upload", timeout=30, pause=0.05)


def wait_done(*tasks):
    wait_for(lambda: all(task.row.upload == "done" for task in tasks))


@pytest.mark.parametrize("folder", ["s3://bucket/logs", "edge+s3://bucket/logs"])
def test_a_finished_log_is_uploaded_whole_and_what_is_no_text_as_airflow_shows_it(start, database, s3, folder):
    start(folder)
    running, task = Task(database, ends=False), Task(database, "Grüße\n".encode() + b"\xff\x00\x1b[31m\nno end")
    wait_done(task)
    assert s3.get(task.path) == "Grüße\n\\xff\x00\x1b[31m\nno end".encode()
    assert s3.get(running.path) is None


def test_two_replicas_upload_each_log_once(start, database, s3):
    tasks = [Task(database, f"{number}\n".encode()) for number in range(12)]
    for _ in range(2):
        start()
    wait_done(*tasks)
    assert [s3.get(task.path) for task in tasks] == [task.sent for task in tasks]


def test_an_api_that_is_killed_between_an_upload_and_its_note_does_not_upload_twice(start, database, s3):
    task = Task(database)
    start(dies="after a log's upload, before that is noted").wait_ended()
    assert (s3.get(task.path), task.row.upload) == (task.sent, "begun")
    start()
    task.hurry()
    wait_done(task)
    assert s3.get(task.path) == task.sent


def test_what_a_log_gains_after_its_upload_is_uploaded_once_though_the_api_is_killed_over_it(start, database, s3):
    first = start()
    task = Task(database)
    wait_done(task)
    first.kill()
    task.log(b"three\n")
    task.end()
    start(dies="after a log's upload, before that is noted").wait_ended()
    start()
    task.hurry()
    wait_done(task)
    assert s3.get(task.path) == b"one\ntwo\nthree\n"


def test_an_s3_that_is_away_gets_each_log_once_when_it_is_back(start, database, tmp_path):
    port = free_port()
    start(port=port)
    tasks = [Task(database) for _ in range(3)]
    wait_for(lambda: all(task.row.upload == "begun" for task in tasks))
    s3 = S3(port, tmp_path)
    try:
        wait_for(lambda: [task.hurry() for task in tasks if task.row.upload != "done"] == [])
        assert [s3.get(task.path) for task in tasks] == [task.sent for task in tasks]
    finally:
        s3.stop()


def test_the_log_of_a_task_that_is_deferred_waits_until_it_is_whole(start, database, s3, no_task_instances):
    task = Task(database)
    with database() as session:
        airflow_rows.put_task_instance(session, "deferred", ti_id=UUID(task.id))
    start()
    wait_for(lambda: task.row.upload_at is not None)
    assert (task.row.upload, s3.get(task.path)) == ("due", None)
    with database() as session:
        session.get(TaskInstance, UUID(task.id)).state = "success"
    task.hurry()
    wait_done(task)
    assert s3.get(task.path) == task.sent


def test_a_log_that_nobody_completed_is_uploaded_when_its_job_is_gone(start, database, s3):
    task = Task(database, ends=False)
    with database() as session:
        session.delete(jobs.lock(session, task.id))
    start()
    wait_done(task)
    assert s3.get(task.path) == task.sent
