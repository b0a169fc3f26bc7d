"""Task log lines as OTLP log records: each once, whatever happens to the API, the collector, and the lines."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime
from functools import partial

import pytest
from far_collector import Answer, FarCollector, taken
from logged import SPAN, TRACE, Task
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from rows import NOW, claim, queue_job, register
from sqlalchemy import select

from demo.telemetry import decode_logs
from demo.wait import wait_for as wait_long_for
from edge_otel.api import log_export, outage
from edge_otel.models import jobs, logs
from edge_otel.models import session as sessions
from edge_otel.models.tables import Job, Log, Worker
from edge_otel.state import JobState
from edge_otel.telemetry import counters

# What does not depend on the database.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Look for lines more often than in production."""
    for name in ("INTERVAL", "NOTE_AGAIN"):
        monkeypatch.setattr(log_export, name, 0.05)


@pytest.fixture
def far():
    """A collector."""
    far = FarCollector()
    yield far
    far.stop()


@pytest.fixture
def serve(serve_gateway):
    """Starts an API that sends task logs to this collector."""
    return partial(serve_gateway, otlp_task_logs=True)


def wait_for(condition):
    """Wait as long as a test may."""
    wait_long_for(condition, "the lines", timeout=60, pause=0.02)


def records(far):
    """Return the records that the collector took."""
    return [record for got in far.got if got.path == "/v1/logs" for record in decode_logs(got.body)]


def bodies(far):
    return [record.body for record in records(far)]


def rests(task):
    """Return whether nothing is due."""
    return not task.row.export_due


def test_each_line_comes_once_with_the_trace_of_its_task_and_half_a_line_when_it_is_whole(database, serve, far):
    serve(far.url)
    task = Task(database, dag_id="d", map_index=3, try_number=2)
    task.log(b'{"timestamp":"2026-01-02T03:04:05Z","level":"error","event":"first"}\nsecond\nthi')
    wait_for(lambda: len(records(far)) == 2)
    wait_for(lambda: rests(task))
    task.log(b"rd\nwithout an end")
    wait_for(lambda: len(records(far)) == 3)
    wait_for(lambda: rests(task))
    task.end()
    wait_for(lambda: rests(task))
    assert bodies(far) == ["first", "second", "third", "without an end"]
    first = records(far)[0]
    assert (first.trace_id, first.span_id, first.severity) == (TRACE, SPAN, "ERROR")
    assert first.time == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp() * 1e9
    assert first.attributes["airflow.dag_id"] == "d"
    assert first.attributes["airflow.task_instance.map_index"] == "3"
    assert first.resource["edge.worker.name"] == "w"
    assert {got.headers["x-key"] for got in far.got} == {"collector-credential"}


def test_lines_of_tries_under_one_id_come_once_with_their_number_though_the_next_begins_while_they_are_sent(
    database, serve, far
):
    serve(far.url)
    with database() as session:
        register(session, "w", NOW)
    job_id, claims, lines = None, {}, Counter()
    for number in range(1, 7):
        with database() as session:
            known = {"id": job_id} if job_id else {}
            job_id = queue_job(session, NOW, log_path=f"attempt={number}.log", try_number=number, **known)
            job = claim(session, session.get(Worker, "w"), NOW)
            jobs.record_report(job, JobState.RUNNING, job.claim, NOW)
            claims[number] = job.claim
        for line in range(20):
            # Of this try, and what is late of the one before.
            for of in {number, max(1, number - 1)}:
                text = f"{of}: {number} {line}\n".encode()
                with database() as session:
                    job = jobs.lock(session, job_id, claims[of])
                    logs.append(session, job, claims[of], logs.cursor(session, job.id, claims[of]), text)
                lines[str(of), text.decode().rstrip()] += 1

    def rest():
        with database() as session:
            return not any(session.scalars(select(Log.export_due)))

    wait_for(rest)
    assert Counter((one.attributes["airflow.task_instance.try_number"], one.body) for one in records(far)) == lines
    assert {one.attributes["messaging.message.id"] for one in records(far)} == {job_id}


@on_sqlite
def test_a_line_of_5_megabytes_is_one_record_and_the_lines_around_it_are_there(database, serve, far):
    serve(far.url)
    task = Task(database)
    task.log(b"before\n" + b"x" * 600_000)
    for _ in range(9):
        task.log(b"x" * 500_000)
    task.log(b"\nafter\n\xff\xfe\nend\n")
    wait_for(lambda: rests(task))
    assert [body[:8] for body in bodies(far)] == ["before", "x" * 8, "after", "\\xff\\xfe", "end"]
    long = records(far)[1]
    assert len(long.body) == 64 * 1024
    assert long.attributes["edge.log.truncated"] == "True"
    assert max(len(got.body) for got in far.got) < 4 * 1024 * 1024


@on_sqlite
def test_a_log_longer_than_one_request_comes_in_several_and_others_do_not_wait_for_it(
    database, serve, far, monkeypatch
):
    for name in ("LOG_BYTES", "REQUEST_BYTES"):
        monkeypatch.setattr(log_export, name, 2000)
    large, small = Task(database), Task(database)
    lines = [f"line {number}" for number in range(3000)]
    large.log("".join(f"{line}\n" for line in lines).encode())
    small.log(b"small\n")
    serve(far.url)
    wait_for(lambda: rests(large) and rests(small))
    found = bodies(far)
    assert [body for body in found if body != "small"] == lines
    assert found.count("small") == 1
    assert found.index("small") < 1000


@on_sqlite
@pytest.mark.parametrize("status", [503, 401, 404])
def test_a_collector_that_is_away_for_a_while_gets_every_line_once_when_it_is_back(
    database, serve, far, monkeypatch, status
):
    monkeypatch.setattr(log_export, "AWAY", 0.2)
    monkeypatch.setattr(outage, "FIRST_WAIT", 0.2)
    far.answer = lambda _: Answer(status, headers={"Retry-After": "0"})
    serve(far.url)
    task = Task(database)
    task.log(b"one\n")
    wait_for(lambda: far.got)
    task.log(b"two\n")
    far.got, far.answer = [], taken
    wait_for(lambda: rests(task))
    assert Counter(bodies(far)) == {"one": 1, "two": 1}


@on_sqlite
def test_nothing_is_sent_twice_or_lost_when_the_api_starts_again(database, serve, far):
    task = Task(database)
    for number in range(3):
        task.log(f"{number}\n".encode() * 10)
        api = serve(far.url)
        if number == 1:
            # It stops while the collector is about to answer.
            far.hold()
            task.log(b"held\n")
            wait_for(lambda: far.waiting)
            threading.Timer(0.2, far.release).start()
        else:
            wait_for(lambda: rests(task))
        api.stop()
    assert Counter(bodies(far)) == {"0": 10, "1": 10, "held": 1, "2": 10}


def test_two_replicas_send_each_line_once(database, serve, far, monkeypatch):
    monkeypatch.setattr(log_export, "LOGS", 3)
    tasks = [Task(database) for _ in range(12)]
    for _ in range(2):
        serve(far.url)
    for part in range(4):
        for number, task in enumerate(tasks):
            task.log(f"{number} {part}\n".encode())
    for task in tasks:
        task.log(b"end")
        task.end()
    wait_for(lambda: all(rests(task) for task in tasks))
    expected = {f"{number} {part}": 1 for number in range(12) for part in range(4)}
    assert Counter(bodies(far)) == expected | {"end": 12}


@on_sqlite
def test_what_the_collector_refuses_does_not_keep_the_other_lines_from_it(database, serve, far):
    far.answer = lambda got: Answer(400 if b"poison" in got.body else 200)
    before = counters.REGISTRY.get_sample_value("edge_log_records_total", {"outcome": "refused"}) or 0
    serve(far.url)
    task = Task(database)
    others = [f"line {number}" for number in range(500)]
    task.log("".join(f"{line}\n" for line in [*others[:300], "poison", *others[300:]]).encode())
    wait_for(lambda: rests(task))
    came = [r.body for got in far.got if b"poison" not in got.body for r in decode_logs(got.body)]
    assert came == others
    assert counters.REGISTRY.get_sample_value("edge_log_records_total", {"outcome": "refused"}) == before + 1


@on_sqlite
def test_lines_that_the_collector_drops_are_counted(database, serve, far):
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = 2
    far.answer = lambda _: Answer(200, answer.SerializeToString(), {"Content-Type": "application/x-protobuf"})
    before = counters.REGISTRY.get_sample_value("edge_log_records_total", {"outcome": "refused"}) or 0
    serve(far.url)
    task = Task(database)
    task.log(b"a\nb\nc\n")
    wait_for(lambda: rests(task))
    assert counters.REGISTRY.get_sample_value("edge_log_records_total", {"outcome": "refused"}) == before + 2


@on_sqlite
def test_a_log_outlives_its_job_until_its_last_line_is_sent(database, serve, far):
    task = Task(database)
    task.log(b"one\ntwo")
    with database() as session:
        session.delete(session.get(Job, task.id))
    serve(far.url)
    wait_for(lambda: rests(task))
    assert bodies(far) == ["one", "two"]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_lines_are_sent_once_though_the_database_does_not_take_the_note_of_it(
    database, serve, far, monkeypatch, caplog
):
    monkeypatch.setattr(sessions, "LOCK_WAIT", 0.1)
    task = Task(database, b"one\n")
    far.hold()
    serve(far.url)
    wait_for(lambda: far.waiting)
    with database() as session:
        session.get(Log, task.id, with_for_update=True)
        far.release()
        wait_for(lambda: "cannot be noted" in caplog.text)
    wait_for(lambda: rests(task))
    assert bodies(far) == ["one"]
