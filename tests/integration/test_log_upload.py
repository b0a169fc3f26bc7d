"""Finished logs in a real S3, by Airflow's own remote log: each once, whatever happens to the API and to S3."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import airflow_rows
import pytest
from airflow.models.taskinstance import TaskInstance
from log_reading import put_with_path
from logged import Task
from remote_s3 import S3, environment
from replicas import Replicas
from s3_environment import s3_packages

from demo.process import free_port
from demo.wait import wait_for as wait_long_for
from edge_otel.models import jobs, logs, upkeep
from edge_otel.state import JobState

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture(scope="module")
def forker():
    """Starts the API with Airflow's Amazon provider."""
    replicas = Replicas(s3_packages())
    yield replicas
    replicas.stop()


@pytest.fixture(scope="module")
def port(forker):
    """The port of an S3, which starts while the other does."""
    return free_port()


@pytest.fixture(scope="module")
def s3(port, tmp_path_factory):
    """An S3."""
    s3 = S3(port, tmp_path_factory.mktemp("s3"))
    yield s3
    s3.stop()


@pytest.fixture
def start(s3, forker, database_url, database, port):
    """Starts the API with S3 as its remote log."""
    started = []

    def start(folder="s3://bucket/logs", **options):
        started.append(forker.start(database_url, env=environment(port, folder), **options))
        return started[-1]

    yield start
    for replica in started:
        replica.kill()


def wait_for(condition):
    """Wait as long as a test may."""
    wait_long_for(condition, "the upload", timeout=30, pause=0.05)


def wait_done(*tasks):
    wait_for(lambda: all(task.row.upload == "done" for task in tasks))


@pytest.mark.parametrize("folder", ["s3://bucket/logs", "edge+s3://bucket/logs"])
def test_a_finished_log_is_uploaded_whole_and_what_is_no_text_as_airflow_shows_it(start, database, s3, folder):
    start(folder)
    running = Task(database, b"one\n")
    task = Task(database, "Grüße\n".encode() + b"\xff\x00\x1b[31m\nno end", ends=True)
    wait_done(task)
    assert s3.get(task.path) == "Grüße\n\\xff\x00\x1b[31m\nno end".encode()
    assert s3.get(running.path) is None


def test_two_replicas_upload_each_log_once(start, database, s3):
    tasks = [Task(database, f"{number}\n".encode(), ends=True) for number in range(12)]
    for _ in range(2):
        start()
    wait_done(*tasks)
    assert [s3.get(task.path) for task in tasks] == [task.sent for task in tasks]


def test_an_api_that_is_killed_between_an_upload_and_its_note_does_not_upload_twice(start, database, s3):
    task = Task(database, b"one\ntwo\n", ends=True)
    start(dies="after a log's upload, before that is noted").wait_ended()
    assert (s3.get(task.path), task.row.upload) == (task.sent, "begun")
    start()
    task.hurry()
    wait_done(task)
    assert s3.get(task.path) == task.sent


def test_what_a_log_gains_after_its_upload_is_uploaded_once_though_the_api_is_killed_over_it(start, database, s3):
    first = start()
    task = Task(database, b"one\ntwo\n", ends=True)
    wait_done(task)
    first.kill()
    task.log(b"three\n")
    task.end()
    start(dies="after a log's upload, before that is noted").wait_ended()
    start()
    task.hurry()
    wait_done(task)
    assert s3.get(task.path) == b"one\ntwo\nthree\n"


def test_an_s3_that_takes_nothing_gets_each_log_once_when_it_does(start, database, s3):
    api = start("s3://later/logs")
    tasks = [Task(database, b"one\ntwo\n", ends=True) for _ in range(3)]
    wait_for(lambda: api.log.read_text().count("was not uploaded") >= len(tasks))
    s3.make("later")
    wait_for(lambda: [task.hurry() for task in tasks if task.row.upload != "done"] == [])
    assert [s3.get(task.path, "later") for task in tasks] == [task.sent for task in tasks]


def test_airflow_shows_an_uploaded_log_on_a_server_that_has_no_file_of_it(
    start, forker, database_url, database, port, tmp_path, no_task_instances
):
    with database() as session:
        id, path = put_with_path(session, "success")
    task = Task(database, b"one\ntwo\n", ends=True, id=id, log_path=path)
    start()
    wait_done(task)
    shown = forker.read(database_url, id, logs=tmp_path, env=environment(port))
    assert shown.splitlines()[-4:] == [f"s3://bucket/logs/{path}", "::endgroup::", "one", "two"]


def test_the_log_of_a_task_that_is_deferred_waits_until_it_is_whole(start, database, s3, no_task_instances):
    task = Task(database, b"one\ntwo\n", ends=True)
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


def test_two_tries_under_one_id_are_two_objects_and_what_comes_late_of_the_first_is_in_its_own(start, database, s3):
    task = Task(database, b"one\n", ends=True)
    start()
    wait_done(task)
    task.try_again()
    task.log(b"late\n")
    task.end()
    wait_for(lambda: (s3.get(task.path), s3.get(task.next_path)) == (task.sent, b"another try\n"))


def test_a_log_that_nobody_completed_is_uploaded_when_its_job_is_gone(start, database, s3):
    task = Task(database, b"one\ntw")
    with database() as session:
        logs.mark_partial(session, task.id, "bytes 6 on have not come")
        jobs.lock(session, task.id).state = JobState.LOST
    with database() as session:
        upkeep.delete_finished(session, [task.id], datetime.now(UTC))
    start()
    wait_done(task)
    assert s3.get(task.path).startswith(b'one\ntw\n{"timestamp"')
    assert s3.get(task.path).endswith(b'"edge-otel: bytes 6 on have not come."}\n')
