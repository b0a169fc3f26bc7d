"""Tries under one id: Airflow gives no new one to a task that was lost before it ran. Each try has its own log, also
where its bytes come when the next one is queued, runs, is over, or is gone."""

from __future__ import annotations

import pytest
from log_tries import PATHS, Tries
from rows import NOW
from served import new_token, registration
from sqlalchemy import select

from edge_otel.models import fleet, logs, upkeep
from edge_otel.models.reports import Report, record_all
from edge_otel.models.tables import Job, Log
from edge_otel.state import JobState, Verdict


@pytest.fixture
def tries(database, api, token):
    """A task."""
    return Tries(database, api, token)


@pytest.mark.parametrize("when", ["queued", "running", "over", "gone"])
def test_what_comes_late_of_a_try_is_in_its_own_log_wherever_the_next_one_is(tries, database, when):
    first = tries.run(1, b"one\nunfin")
    tries.lose(first)
    tries.sweep().write()
    if when == "queued":
        tries.queue(2)
    else:
        second = tries.run(2, b"two\n")
        assert second > first
    if when in ("over", "gone"):
        assert tries.end(second, 4).verdict is Verdict.STORED
    if when == "gone":
        with database() as session:
            upkeep.delete_finished(session, [tries.id], NOW)
            assert session.get(Job, tries.id) is None
    tries.sweep().write()
    assert tries.files()["1"] == b"one\n"
    assert b"bytes 9 on have not come from edge worker w" in tries.files()["1.log.fault"]
    assert tries.stored(first) == "bytes=0-8"
    assert tries.send(first, 9, b"ished\n").headers["Range"] == "bytes=0-14"
    told = tries.end(first, 15)
    assert told.verdict is Verdict.REPEATED
    if when == "running":
        assert tries.send(second, 4, b"2\n").status_code == 202
        assert tries.end(second, 6).verdict is Verdict.STORED
    after = {"queued": {}, "running": {"2": b"two\n2\n"}}.get(when, {"2": b"two\n"})
    assert tries.files() == {"1": b"one\nunfinished\n", **after}


def test_a_try_of_which_no_byte_had_come_before_the_next_one_has_its_log(tries, database):
    first = tries.run(1)
    tries.lose(first)
    second = tries.run(2, b"two\n")
    assert tries.send(first, 0, b"one\n").status_code == 202
    tries.end(second, 4)
    tries.end(first, 4)
    assert tries.files() == {"1": b"one\n", "2": b"two\n"}
    with database() as session:
        assert {log.path: log.known_as for log in session.scalars(select(Log))} == {PATHS[1]: tries.id, PATHS[2]: None}


def test_the_end_of_a_try_that_comes_before_its_bytes_is_told_to_that_try_alone(tries, database):
    first = tries.run(1)
    tries.lose(first)
    second = tries.run(2)
    tries.end(first, 4)
    tries.end(second, 0)
    with database() as session:
        job = session.get(Job, tries.id)
        assert job.log_ends == {str(second): [0, None]}
        assert logs.missing(job, {}) == {}
        earlier = session.scalars(select(Job).where(Job.known_as == tries.id)).one()
        assert (earlier.state, earlier.log_ends, earlier.workload) == (JobState.LOST, {str(first): [4, None]}, "")
    tries.send(first, 0, b"one\n")
    assert tries.files() == {"1": b"one\n"}


def test_each_of_three_tries_has_its_log_and_runs_of_a_deferred_one_are_one_log(tries):
    first = tries.run(1, b"one\n")
    tries.lose(first)
    before = tries.run(2, b"before\nit was def")
    tries.end(before, 23)
    after = tries.run(2, b"after\n")
    tries.lose(after)
    third = tries.run(3, b"three\n")
    for number, at, text, length in ((before, 17, b"erred\n", 23), (first, 4, b"1\n", 6), (after, 6, b"2\n", 8)):
        assert tries.send(number, at, text).status_code == 202
        tries.end(number, length)
    tries.end(third, 6)
    assert tries.files() == {"1": b"one\n1\n", "2": b"before\nit was deferred\nafter\n2\n", "3": b"three\n"}


def test_a_try_that_still_ran_for_its_worker_is_over_and_its_process_is_wanted_no_more(tries, database):
    first = tries.run(1, b"one\n")
    tries.queue(2)
    running = fleet.Running("w", tries.id, first)
    with database() as session:
        assert fleet.not_held(session, [running]) == [running]
        earlier = session.scalars(select(Job).where(Job.known_as == tries.id)).one()
        assert (earlier.state, earlier.ended_at) == (JobState.LOST, NOW)
        accepts = Report("w", tries.id, first, JobState.RUNNING)
        assert record_all(session, [accepts], NOW)[0].verdict is Verdict.STALE
    tries.send(first, 4, b"1\n")
    tries.end(first, 6)
    assert tries.files() == {"1": b"one\n1\n"}
    assert tries.run(2) > first


def test_reports_and_logs_over_v1_find_the_try_that_they_name(tries, api, token):
    api.call("POST", "/v1/worker/w", token, json=registration())
    first = tries.run(1)
    tries.lose(first)
    second = tries.run(2, b"two\n")
    names = [f"dag/task/run/{number}/-1" for number in (1, 2)]
    path = api.call("GET", f"/v1/logs/logfile_path/{names[0]}?task_instance_id={tries.id}", token)
    assert path.json() == PATHS[1]
    piece = {"log_chunk_time": NOW.isoformat(), "log_chunk_data": "one\n", "task_instance_id": tries.id}
    for _ in range(2):
        assert api.call("POST", f"/v1/logs/push/{names[0]}", token, json=piece).status_code == 200
    for name, number in zip(names, (first, second), strict=True):
        end = {"task_instance_id": tries.id, "claim": number, "log_length": 4}
        assert api.call("PATCH", f"/v1/jobs/state/{name}/failed", token, json=end).status_code == 200
    assert tries.files() == {"1": b"one\n", "2": b"two\n"}


def test_a_claim_of_an_earlier_try_is_closed_to_other_workers_and_gone_with_its_row(tries, database):
    first = tries.run(1, b"one\n")
    tries.lose(first)
    tries.run(2)
    tries._token, ours = new_token("v"), tries._token
    assert tries.send(first, 4, b"1\n").status_code == 403
    tries._token = ours
    with database() as session:
        earlier = session.scalars(select(Job.id).where(Job.known_as == tries.id)).one()
        upkeep.delete_finished(session, [earlier], NOW)
    refused = tries.send(first, 4, b"1\n")
    assert (refused.status_code, refused.json()["error"]) == (409, "StaleClaim")


def test_the_log_of_a_try_whose_job_is_gone_stays_what_it_is_when_the_id_comes_back(tries, database):
    first = tries.run(1, b"one\n")
    tries.end(first, 4)
    with database() as session:
        upkeep.delete_finished(session, [tries.id], NOW)
    second = tries.run(2, b"two\n")
    assert second > first
    tries.end(second, 4)
    assert tries.files() == {"1": b"one\n", "2": b"two\n"}
    with database() as session:
        assert {(log.path, log.about["try_number"]) for log in session.scalars(select(Log))} == {
            (PATHS[1], 1),
            (PATHS[2], 2),
        }


def test_a_number_that_an_earlier_try_had_is_not_given_again_when_the_job_is_gone(tries, database):
    first = tries.run(1)
    tries.lose(first)
    second = tries.run(2)
    tries.end(second, 0)
    with database() as session:
        upkeep.delete_finished(session, [tries.id], NOW)
    third = tries.run(2)
    assert third > first
    tries.send(first, 0, b"one\n")
    tries.end(first, 4)
    assert tries.files() == {"1": b"one\n"}
