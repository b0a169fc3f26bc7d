"""Task log lines as OTLP log records: each once, whatever happens to the API, the collector, and the lines."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from far_collector import Answer, FarCollector, taken
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from rows import NOW, claim, queue_job, register

from demo.telemetry import decode_logs
from demo.wait import wait_for as wait_long_for
from edge_otel.api import log_export
from edge_otel.models import jobs, log_sinks, logs
from edge_otel.models.tables import Job, Log, Worker
from edge_otel.state import JobState
from edge_otel.telemetry import counters

TRACE, SPAN = "1" * 32, "2" * 16


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Look for lines more often than in production."""
    monkeypatch.setattr(log_export, "INTERVAL", 0.05)


@pytest.fixture
def far():
    """A collector."""
    far = FarCollector()
    yield far
    far.stop()


class Task:
    """A job that worker ``w`` runs."""

    def __init__(self, database, **fields):
        self._database = database
        with database() as session:
            now = datetime.now(UTC)
            worker = session.get(Worker, "w") or register(session, "w", now)
            self.id = queue_job(session, now, carrier={"traceparent": f"00-{TRACE}-{SPAN}-01"}, **fields)
            job = claim(session, worker, now)
            jobs.record_report(job, JobState.RUNNING, job.claim, now)
        self.sent = b""

    def log(self, text):
        """Append to its log."""
        with self._database() as session:
            logs.append(session, jobs.lock(session, self.id), 1, len(self.sent), text)
        self.sent += text

    def end(self):
        """End it, as the API does once the file stands."""
        with self._database() as session:
            job = jobs.lock(session, self.id)
            now = datetime.now(UTC)
            jobs.record_report(job, JobState.SUCCESS, 1, now, log_length=len(self.sent))
            job.log_complete = True
            logs.mark_written(session, self.id, now)


def wait_for(condition):
    """Wait as long as a test may."""
    wait_long_for(condition, "the lines", timeout=20, pause=0.02)


def records(far):
    """Return the records that the collector took."""
    return [record for got in far.got if got.path == "/v1/logs" for record in decode_logs(got.body)]


def bodies(far):
    return [record.body for record in records(far)]


def rests(database, task):
    """Return whether nothing is due."""
    with database() as session:
        return not session.get(Log, task.id).export_due


def test_each_line_comes_once_with_the_trace_of_its_task_and_half_a_line_when_it_is_whole(database, serve_gateway, far):
    serve_gateway(far.url)
    task = Task(database, dag_id="d", map_index=3, try_number=2)
    task.log(b'{"timestamp":"2026-01-02T03:04:05Z","level":"error","event":"first"}\nsecond\nthi')
    wait_for(lambda: len(records(far)) == 2)
    wait_for(lambda: rests(database, task))
    task.log(b"rd\nwithout an end")
    wait_for(lambda: len(records(far)) == 3)
    wait_for(lambda: rests(database, task))
    task.end()
    wait_for(lambda: rests(database, task))
    assert bodies(far) == ["first", "second", "third", "without an end"]
    first = records(far)[0]
    assert (first.trace_id, first.span_id, first.severity) == (TRACE, SPAN, "ERROR")
    assert first.time == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp() * 1e9
    assert first.attributes["airflow.dag_id"] == "d"
    assert first.attributes["airflow.task_instance.map_index"] == "3"
    assert first.resource["edge.worker.name"] == "w"
    assert {got.headers["x-key"] for got in far.got} == {"collector-credential"}


def test_a_line_of_5_megabytes_is_one_record_and_the_lines_around_it_are_there(database, serve_gateway, far):
    serve_gateway(far.url)
    task = Task(database)
    task.log(b"before\n" + b"x" * 600_000)
    for _ in range(9):
        task.log(b"x" * 500_000)
    task.log(b"\nafter\n\xff\xfe\nend\n")
    wait_for(lambda: rests(database, task))
    assert [body[:8] for body in bodies(far)] == ["before", "x" * 8, "after", "\\xff\\xfe", "end"]
    long = records(far)[1]
    assert len(long.body) == 64 * 1024
    assert long.attributes["edge.log.truncated"] == "True"
    assert max(len(got.body) for got in far.got) < 4 * 1024 * 1024


def test_a_log_longer_than_one_request_comes_in_several_and_others_do_not_wait_for_it(
    database, serve_gateway, far, monkeypatch
):
    for name in ("LOG_BYTES", "REQUEST_BYTES"):
        monkeypatch.setattr(log_export, name, 2000)
    large, small = Task(database), Task(database)
    lines = [f"line {number}" for number in range(3000)]
    large.log("".join(f"{line}\n" for line in lines).encode())
    small.log(b"small\n")
    serve_gateway(far.url)
    wait_for(lambda: rests(database, large) and rests(database, small))
    found = bodies(far)
    assert [body for body in found if body != "small"] == lines
    assert found.count("small") == 1
    assert found.index("small") < 1000


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("status", [503, 401, 404])
def test_a_collector_that_is_away_for_a_while_gets_every_line_once_when_it_is_back(
    database, serve_gateway, far, monkeypatch, status
):
    monkeypatch.setattr(log_export, "AWAY", 0.2)
    far.answer = lambda _: Answer(status)
    serve_gateway(far.url)
    task = Task(database)
    task.log(b"one\n")
    wait_for(lambda: far.got)
    task.log(b"two\n")
    far.got, far.answer = [], taken
    wait_for(lambda: rests(database, task))
    assert Counter(bodies(far)) == {"one": 1, "two": 1}


def test_nothing_is_sent_twice_or_lost_when_the_api_starts_again(database, serve_gateway, far):
    task = Task(database)
    for number in range(3):
        task.log(f"{number}\n".encode() * 10)
        api = serve_gateway(far.url)
        if number == 1:
            # It stops while the collector is about to answer.
            far.hold()
            task.log(b"held\n")
            wait_for(lambda: far.waiting)
            threading.Timer(0.2, far.release).start()
        else:
            wait_for(lambda: rests(database, task))
        api.stop()
    assert Counter(bodies(far)) == {"0": 10, "1": 10, "held": 1, "2": 10}


def test_two_replicas_send_each_line_once(database, serve_gateway, far, monkeypatch):
    monkeypatch.setattr(log_export, "LOGS", 3)
    tasks = [Task(database) for _ in range(12)]
    for _ in range(2):
        serve_gateway(far.url)
    for part in range(4):
        for number, task in enumerate(tasks):
            task.log(f"{number} {part}\n".encode())
    for task in tasks:
        task.log(b"end")
        task.end()
    wait_for(lambda: all(rests(database, task) for task in tasks))
    expected = {f"{number} {part}": 1 for number in range(12) for part in range(4)}
    assert Counter(bodies(far)) == expected | {"end": 12}


def test_what_the_collector_refuses_does_not_keep_the_other_lines_from_it(database, serve_gateway, far):
    far.answer = lambda got: Answer(400 if b"poison" in got.body else 200)
    before = counters.REGISTRY.get_sample_value("edge_log_records_total", {"outcome": "refused"}) or 0
    serve_gateway(far.url)
    task = Task(database)
    others = [f"line {number}" for number in range(500)]
    task.log("".join(f"{line}\n" for line in [*others[:300], "poison", *others[300:]]).encode())
    wait_for(lambda: rests(database, task))
    came = [r.body for got in far.got if b"poison" not in got.body for r in decode_logs(got.body)]
    assert came == others
    assert counters.REGISTRY.get_sample_value("edge_log_records_total", {"outcome": "refused"}) == before + 1


def test_lines_that_the_collector_drops_are_counted(database, serve_gateway, far):
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = 2
    far.answer = lambda _: Answer(200, answer.SerializeToString(), {"Content-Type": "application/x-protobuf"})
    before = counters.REGISTRY.get_sample_value("edge_log_records_total", {"outcome": "refused"}) or 0
    serve_gateway(far.url)
    task = Task(database)
    task.log(b"a\nb\nc\n")
    wait_for(lambda: rests(database, task))
    assert counters.REGISTRY.get_sample_value("edge_log_records_total", {"outcome": "refused"}) == before + 2


def test_a_log_outlives_its_job_until_its_last_line_is_sent(database, serve_gateway, far):
    task = Task(database)
    task.log(b"one\ntwo")
    with database() as session:
        session.delete(session.get(Job, task.id))
    serve_gateway(far.url)
    wait_for(lambda: rests(database, task))
    assert bodies(far) == ["one", "two"]


def test_lines_that_come_while_others_are_sent_are_due_afterwards(database):
    task = Task(database)
    task.log(b"one\n")
    soon = NOW + timedelta(minutes=2)
    with database() as session:
        (export,) = log_sinks.claim_exports(session, NOW, soon, 9)
        seen = log_sinks.stored(session, task.id)
    with database() as session:
        assert log_sinks.claim_exports(session, NOW, soon, 9) == []
    task.log(b"two\n")
    with database() as session:
        log_sinks.note_exported(session, export, {1: (4, False)}, NOW)
        log_sinks.rest_export(session, task.id, {1: (4, False)}, seen)
    with database() as session:
        (again,) = log_sinks.claim_exports(session, NOW, soon, 9)
    assert again.places == {1: (4, False)}


def test_who_lost_the_lease_notes_nothing(database):
    task = Task(database)
    task.log(b"one\n")
    with database() as session:
        (late,) = log_sinks.claim_exports(session, NOW, NOW + timedelta(seconds=1), 9)
    with database() as session:
        (export,) = log_sinks.claim_exports(session, NOW + timedelta(seconds=2), NOW + timedelta(seconds=9), 9)
        log_sinks.note_exported(session, late, {1: (1, False)}, NOW)
    with database() as session:
        assert session.get(Log, task.id).exported == {}
        log_sinks.note_exported(session, export, {1: (4, False)}, NOW)
    with database() as session:
        assert session.get(Log, task.id).exported == {"1": [4, False]}
