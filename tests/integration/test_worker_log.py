"""The last lines of each worker's log, as they come with its reports: each once, in order, not more than are kept; and
the load that they tell."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from channels import stored_as, wait_for
from rows import NOW, beat, register
from served import FACTS, registration
from sqlalchemy import event, func, select
from sqlalchemy.exc import OperationalError

from edge_otel.models import fleet, wishes, worker_log, workers
from edge_otel.models.database import DatabaseFailure
from edge_otel.models.tables import Worker, WorkerLog
from edge_otel.state import WorkerState
from edge_otel.wire import MAX_LOG_LINES, MAX_LOG_TEXT

SECOND = timedelta(seconds=1)


def lines(*numbers, source="p1", **fields):
    """Return what a report has of the log."""
    given = {"time": NOW.isoformat(), "level": 20, "logger": "edge_worker.loop", **fields}
    return {"source": source, "lines": [{"number": n, "text": f"line {n}", **given} for n in numbers]}


def texts(database, name="w"):
    """Return the lines that are stored."""
    with database() as session:
        return [line.text for line in worker_log.tail(session, name)]


def numbered(*numbers):
    """Return the texts of these lines."""
    return [f"line {n}" for n in numbers]


def count(database):
    """Return how many lines are stored of all workers."""
    with database() as session:
        return session.scalar(select(func.count()).select_from(WorkerLog))


def test_lines_of_registration_and_heartbeats_are_stored_in_order(database):
    with database() as session:
        register(session, "w", NOW, log=lines(1, 2))
        register(session, "v", NOW, log=lines(7))
    with database() as session:
        beat(session, NOW + SECOND)
        beat(session, NOW + SECOND, log=lines(3, time=(NOW + SECOND).isoformat(), level=40, text="no disk 💾"))
    with database() as session:
        found = worker_log.tail(session, "w")
        assert found[1] == worker_log.Line("p1", 2, NOW, 20, "edge_worker.loop", "line 2")
        assert found[2] == worker_log.Line("p1", 3, NOW + SECOND, 40, "edge_worker.loop", "no disk 💾")
        assert [line.text for line in worker_log.tail(session, "w", limit=2)] == ["line 2", "no disk 💾"]
        assert [line.number for line in worker_log.tail(session, "v")] == [7]
        assert worker_log.tail(session, "nobody") == []


def test_a_line_that_comes_again_is_stored_once(database):
    with database() as session:
        register(session, "w", NOW, log=lines(1, 2))
        beat(session, NOW, log=lines(2, 3, 3))
    with database() as session:
        beat(session, NOW, log=lines(1, 2, 3))
        beat(session, NOW, log=lines(2, 3, 4))
    assert texts(database) == numbered(1, 2, 3, 4)


def test_the_lines_of_a_new_daemon_follow_those_of_the_old_one(database):
    with database() as session:
        register(session, "w", NOW, log=lines(1, 2))
    with database() as session:
        register(session, "w", NOW, session="s2", log=lines(1, 2, source="p2"))
    # The same process under a new session.
    with database() as session:
        register(session, "w", NOW, session="s3", log=lines(1, 2, 3, source="p2"))
    assert texts(database) == numbered(1, 2, 1, 2, 3)
    with database() as session:
        assert [line.source for line in worker_log.tail(session, "w")] == ["p1", "p1", "p2", "p2", "p2"]


def test_a_flood_leaves_the_last_lines(database):
    with database() as session:
        register(session, "w", NOW)
        register(session, "quiet", NOW, log=lines(1))
    for start in range(1, 10_001, MAX_LOG_LINES):
        with database() as session:
            beat(session, NOW, log=lines(*range(start, start + MAX_LOG_LINES)))
    assert texts(database) == numbered(*range(9801, 10_001))
    assert texts(database, "quiet") == ["line 1"]
    assert count(database) <= worker_log.KEPT + worker_log.STEP // worker_log.SMALLEST + 1


def test_lines_of_many_bytes_are_fewer(database):
    with database() as session:
        register(session, "w", NOW)
    for start in range(1, 401, MAX_LOG_LINES):
        with database() as session:
            beat(session, NOW, log=lines(*range(start, start + MAX_LOG_LINES), text="💥" * MAX_LOG_TEXT))
    with database() as session:
        found = worker_log.tail(session, "w")
    assert sum(len(line.text.encode()) for line in found) <= worker_log.KEPT * worker_log.SMALLEST
    assert [line.number for line in found] == list(range(351, 401))


def test_a_worker_that_is_removed_takes_its_lines_with_it_and_begins_anew(database):
    with database() as session:
        register(session, "w", NOW, log=lines(1, 2))
        register(session, "v", NOW, log=lines(9))
        beat(session, NOW, WorkerState.OFFLINE)
        wishes.remove(session, "w", NOW)
    assert texts(database) == []
    assert texts(database, "v") == ["line 9"]
    with database() as session:
        register(session, "w", NOW, log=lines(2, 3))
    assert texts(database) == numbered(2, 3)


STRANGE = [
    {"number": 0},
    {"number": 2**63},
    {"number": "x"},
    {"time": "yesterday"},
    {"time": "2026-01-02T03:04:05"},
    {"level": 1000},
    {"level": None},
    {"logger": "x" * 65},
    {"text": "x" * (MAX_LOG_TEXT + 1)},
    {"text": None},
    {"text": ["x"]},
]


@pytest.mark.parametrize("strange", STRANGE, ids=str)
def test_a_malformed_line_costs_neither_the_report_nor_the_other_lines(api, token, database, strange):
    log = lines(1, 2, 3)
    log["lines"][1] |= strange
    assert api.call("POST", "/v1/worker/w", token, json=registration(log=log)).status_code == 200
    assert texts(database) == numbered(1, 3)


@pytest.mark.parametrize(
    "log",
    [
        "x",
        {},
        [],
        {"source": "p1"},
        {"source": "", "lines": []},
        {"source": "p 1", "lines": []},
        {"source": "p1", "lines": "x"},
        lines(*range(1, MAX_LOG_LINES + 2)),
    ],
    ids=lambda log: str(log)[:40],
)
def test_a_malformed_log_does_not_cost_the_report(api, token, database, log):
    assert api.call("POST", "/v1/worker/w", token, json=registration("idle", log=log)).status_code == 200
    assert texts(database) == []


@pytest.mark.parametrize("text", ["\x00", "\x1b[31m\r\n\t", "\u202e\ufffe", "'; DROP TABLE x; --", "%s%(x)s\\", ""])
def test_any_text_is_stored_without_nul(api, token, database, text):
    assert api.call("POST", "/v1/worker/w", token, json=registration(log=lines(1, text=text))).status_code == 200
    assert texts(database) == [text.replace("\x00", "\ufffd")]


def test_half_a_character_costs_only_its_line(api, token, database):
    body = json.dumps(registration(log=lines(1, 2))).replace("line 1", "\\ud800")
    headers = {"Content-Type": "application/json"}
    assert api.call("POST", "/v1/worker/w", token, data=body, headers=headers).status_code == 200
    assert texts(database) == ["line 2"]


@pytest.mark.parametrize("time", ["1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00"])
def test_a_host_without_a_clock_is_heard(api, token, database, time):
    body = registration(log=lines(1, time=time))
    assert api.call("POST", "/v1/worker/w", token, json=body).status_code == 200
    assert texts(database) == ["line 1"]


def test_a_worker_that_polls_says_a_line_again_until_it_is_answered(api, token, database):
    api.call("POST", "/v1/worker/w", token, json=registration())
    for numbers in ((1, 2), (1, 2, 3)):
        answer = api.call("PATCH", "/v1/worker/w", token, json=registration("idle", log=lines(*numbers)))
        assert answer.status_code == 200
    assert texts(database) == numbered(1, 2, 3)


def test_a_worker_without_the_field_is_served(api, token, database):
    """As of edge3, and older daemons."""
    assert "log" not in registration()
    assert api.call("POST", "/v1/worker/w", token, json=registration()).status_code == 200
    assert api.call("PATCH", "/v1/worker/w", token, json=registration("idle", log=None)).status_code == 200
    assert texts(database) == []
    with database() as session:
        assert (workers.get(session, "w").log_end, workers.get(session, "w").load_history) == ({}, {})


def test_all_lines_of_the_heartbeats_between_two_writes_are_stored(connect, database):
    far = connect(log=lines(1))
    for number in range(2, 20):
        far.beat(log=lines(number))
    wait_for(lambda: texts(database) == numbered(*range(1, 20)), "the lines")


def test_lines_that_were_answered_and_not_written_come_with_the_next_channel(connect, database, start_api):
    far = connect(log=lines(1))
    other = connect(to=start_api(channels=True), session=far.session, log=lines(1, 2, 3))
    # The first server has this line, for a channel that does not count any more.
    far.beat(log=lines(2))
    other.beat("running", log=lines(4))
    stored_as(database, "w", "running")
    assert texts(database) == numbered(1, 2, 3, 4)


def test_lines_wait_while_the_database_fails(connect, database, monkeypatch):
    far = connect()
    failed = []

    def fail(session, beats):
        failed.append(len(failed))
        raise OperationalError("UPDATE", {}, Exception("away"))

    assert issubclass(OperationalError, DatabaseFailure)
    with monkeypatch.context() as patch:
        patch.setattr(fleet, "record_beats", fail)
        far.beat(log=lines(1))
        wait_for(lambda: failed, "a failure")
        far.beat(log=lines(2))
        failed.clear()
        wait_for(lambda: failed, "another failure")
    far.beat(log=lines(3))
    wait_for(lambda: texts(database) == numbered(1, 2, 3), "the lines")


# SQLite has no locks of rows.
@pytest.mark.parametrize("database_url", ["postgresql", "mysql"], indirect=True)
def test_lines_wait_for_a_row_that_is_locked(connect, database, monkeypatch):
    record, passed_over = fleet.record_beats, []

    def note(session, beats):
        recorded = record(session, beats)
        passed_over.extend(recorded.not_written)
        return recorded

    monkeypatch.setattr(fleet, "record_beats", note)
    far = connect()
    with database() as session:
        session.scalars(select(Worker).where(Worker.name == "w").with_for_update()).one()
        far.beat("running", log=lines(1))
        wait_for(lambda: passed_over, "the lock to be met")
        far.beat("running", log=lines(2))
    stored_as(database, "w", "running")
    wait_for(lambda: texts(database) == numbered(1, 2), "the lines")


def test_heartbeats_of_many_workers_are_written_together_with_lines_and_without(database):
    """In as many statements for 40 workers as for 4."""
    counts = []
    for size in (4, 40):
        names = [f"w{size}-{number}" for number in range(size)]
        with database() as session:
            for name in names:
                register(session, name, NOW, state=WorkerState.IDLE, connection=str(uuid4()))
        with database() as session:
            rows = {row.name: row for row in workers.every(session)}
            beats = {}
            for number, name in enumerate(names):
                # Some have lines, and for some a sample of the load is due.
                log = lines(1, 2) if number % 2 else None
                reported = registration("idle", sysinfo={**FACTS, "cpu_percent": 5}, log=log)
                report = fleet.WorkerReport.model_validate(reported)
                at = NOW + (30 if number % 3 else 90) * SECOND
                beats[name] = fleet.Beat(rows[name].connection, report, at, None, report.logged)
            statements = []

            def note(connection, cursor, statement, parameters, context, executemany, into=statements):
                into.append(statement)

            engine = session.get_bind()
            event.listen(engine, "before_cursor_execute", note)
            try:
                fleet.record_beats(session, beats)
            finally:
                event.remove(engine, "before_cursor_execute", note)
        counts.append(len(statements))
        assert texts(database, names[1]) == numbered(1, 2)
    assert counts[0] == counts[1], statements


def test_the_load_of_the_last_hour_is_in_the_row(connect, database):
    before = int(datetime.now(UTC).timestamp())
    far = connect(sysinfo={**FACTS, "cpu_percent": 12.6, "memory_percent": 40})
    for _ in range(5):
        far.beat("running", sysinfo={**FACTS, "cpu_percent": 99.0, "memory_percent": 40})
    stored_as(database, "w", "running")
    with database() as session:
        found = workers.get(session, "w").load_history
    assert before <= found.pop("at") <= int(datetime.now(UTC).timestamp())
    assert found == {"cpu": [13], "memory": [40]}


def test_the_load_is_sampled_each_minute(database):
    with database() as session:
        register(session, "w", NOW)
    for second in range(10, 190, 10):
        with database() as session:
            beat(session, NOW + second * SECOND, sysinfo={**FACTS, "cpu_percent": second / 2, "memory_percent": 7})
    with database() as session:
        found = workers.get(session, "w").load_history
    assert found == {"at": int(NOW.timestamp()) + 130, "cpu": [5, 35, 65], "memory": [7, 7, 7]}
