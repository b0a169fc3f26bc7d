"""What no worker should do to the channel, and what must not hurt the others."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from datetime import timedelta
from socket import SHUT_RDWR
from threading import Thread
from types import SimpleNamespace
from uuid import uuid4

import pytest
import requests
from channels import Far, close_code, now, queue, state, stored_as, wait_for
from rows import queue_job
from served import FACTS, new_token
from sqlalchemy import text
from websockets.exceptions import ConnectionClosed, InvalidStatus

from edge_otel.api.hub import keep
from edge_otel.messages import Accept, Ended, Heartbeat, Hello
from edge_otel.models import jobs, upkeep, wishes
from edge_otel.models.tables import Job
from edge_otel.state import JobState, WorkerState


def test_a_first_message_that_is_no_hello_is_refused(connect):
    far = connect(hello=False)
    far.say(Accept(id=uuid4(), claim=1))
    assert far.hear().error == "BadInput"
    assert close_code(far) == 4422


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"type": "accept"}', '{"type": "heartbeat", "seq": -1}', "\x00", '{"no": "type"}']
)
def test_a_malformed_message_is_answered_and_costs_nothing_else(connect, text):
    far = connect()
    far.say(text)
    assert far.hear().error == "BadInput"
    assert far.beat().seq == 1


def test_bytes_are_no_message_and_cost_nothing_else(connect):
    far = connect()
    far.say(b"\xff")
    assert far.hear().error == "BadInput"
    assert far.beat().seq == 1


def test_an_unknown_message_is_passed_over(connect):
    far = connect()
    far.say('{"type": "from the future", "id": 1}')
    assert far.beat().seq == 1


def test_a_message_that_is_too_large_is_refused(connect):
    far = connect()
    far.say('{"type": "heartbeat", "padding": "' + "x" * 2**20 + '"}')
    assert far.hear().error == "TooLarge"
    assert far.beat().seq == 1


def test_channels_over_the_limit_are_told_to_come_later(start_api, connect, database):
    api = start_api(channels=True, channel_limit=1)
    connect(to=api)
    with pytest.raises(InvalidStatus) as refused:
        Far(api.url, new_token("v"), "v")
    assert refused.value.response.status_code == 503
    assert refused.value.response.headers["Retry-After"] == "10"


def test_a_worker_that_does_not_read_loses_its_channel_and_its_offers(connect, database, monkeypatch):
    monkeypatch.setattr("edge_otel.api.link.SENT_WITHIN", 0.5)
    slow = connect(max_queue=1)
    slow.facts["concurrency"] = 1000
    slow.beat()
    ids = [queue(database, workload=json.dumps({"type": "x" * 1_000_000})) for _ in range(20)]
    other = connect(name="v", token=new_token("v"))
    assert other.beat().seq == 1
    wait_for(lambda: state(database, ids[-1]) is JobState.QUEUED, "the offers to return")


def test_large_jobs_reach_a_worker_that_reads(connect, database):
    far = connect()
    far.facts["concurrency"] = 20
    far.beat()
    ids = {queue(database, workload=json.dumps({"type": "x" * 1_000_000})) for _ in range(20)}
    assert {str(far.hear("job").task_instance_id) for _ in range(20)} == ids


def test_a_worker_that_says_much_and_reads_nothing_is_not_read_either(connect, database):
    far = connect(max_queue=1)
    far.facts["padding"] = "x" * 900
    heartbeat = {"state": "idle", "seq": 2, "sysinfo": far.facts, "session": far.session, "jobs": []}
    text = Heartbeat.model_validate(heartbeat).model_dump_json()
    said = []

    def say():
        with suppress(ConnectionClosed):
            while True:
                far.say(text)
                said.append(1)

    talking = Thread(target=say, daemon=True)
    talking.start()

    def stuck():
        before = len(said)
        time.sleep(0.5)
        return before == len(said)

    wait_for(stuck, "the worker's words to be held back")
    assert connect(name="v", token=new_token("v")).beat().seq == 1
    far.socket.socket.shutdown(SHUT_RDWR)
    talking.join(10)


@pytest.mark.parametrize(
    "row", [{"workload": "{"}, {"workload": "[]"}, {"carrier": {"traceparent": 1}}], ids=["cut", "list", "carrier"]
)
def test_a_malformed_row_fails_alone(connect, database, channel_api, row):
    bad = queue(database, priority=9, **row)
    good = [queue(database) for _ in range(3)]
    far = connect()
    assert {str(far.hear("job").task_instance_id) for _ in good} == set(good)
    wait_for(lambda: state(database, bad) is JobState.FAILED, "the malformed job to fail")
    with database() as session:
        assert "malformed" in session.get(Job, bad).error


def test_a_malformed_row_fails_alone_for_a_worker_that_polls(channel_api, database, token):
    body = {"state": "idle", "sysinfo": FACTS, "session": "s", "jobs": []}
    channel_api.call("POST", "/v1/worker/w", token, json=body)
    bad, good = queue(database, priority=9, workload="["), queue(database)
    wish = {"free_concurrency": 1, "supports_task_instance_uuid": True, "claims": True, "session": "s"}
    assert channel_api.call("POST", "/v1/jobs/fetch/w", token, json=wish).json()["task_instance_id"] == good
    assert state(database, bad) is JobState.FAILED


@pytest.mark.parametrize("database_url", ["postgresql", "mysql"], indirect=True)
def test_a_row_that_somebody_else_has_locked_holds_up_no_other_report(connect, database):
    far = connect()
    locked, free = queue(database), queue(database)
    offers = {str(offer.task_instance_id): offer for offer in (far.hear("job"), far.hear("job"))}
    with database() as session:
        jobs.lock(session, locked)
        for job_id in (locked, free):
            far.say(Accept(id=offers[job_id].task_instance_id, claim=1))
        assert str(far.hear("confirmed").id) == free
    assert str(far.hear("confirmed").id) == locked


def test_the_server_is_ready_with_its_hub_alone(channel_api, start_api):
    assert channel_api.call("GET", "/readyz").status_code == 200
    silent = start_api()
    assert silent.call("GET", "/readyz").status_code == 503


def test_a_server_that_stops_closes_its_channels_as_restarting(connect, start_api):
    api = start_api(channels=True)
    far = connect(to=api)
    api.stop()
    assert close_code(far) == 1012
    with pytest.raises(requests.ConnectionError):
        api.call("GET", "/livez")


def test_a_worker_without_a_session_of_its_own_is_no_channel_worker(connect):
    far = connect(hello=False)
    text = Hello.model_validate({"state": "idle", "name": "w", "session": "s", "sysinfo": FACTS}).model_dump_json()
    far.say(text.replace('"session":"s"', '"session":null'))
    assert far.hear().error == "BadInput"


on_row_locks = pytest.mark.parametrize("database_url", ["postgresql", "mysql"], indirect=True)


@on_row_locks
def test_a_worker_row_that_is_locked_holds_up_no_other_worker(connect, database):
    far, other = connect(), connect(name="v", token=new_token("v"))
    with database() as session:
        wishes.set_concurrency(session, "w", 5, now(), by="ann")
        session.flush()
        far.beat("running", jobs_active=1)
        other.beat("running", jobs_active=1)
        stored_as(database, "v", WorkerState.RUNNING)
    stored_as(database, "w", WorkerState.RUNNING)
    assert far.hear("settings").concurrency == 5


@on_row_locks
def test_a_worker_row_that_is_locked_is_no_reason_to_refuse_the_others(connect, database):
    connect()
    with database() as session:
        wishes.set_concurrency(session, "w", 5, now(), by="ann")
        session.flush()
        waiting = [connect(hello=False) for _ in range(6)]
        for far in waiting:
            far.say(Hello.model_validate({"state": "idle", "name": "w", "session": far.session, "sysinfo": FACTS}))
        assert connect(name="v", token=new_token("v")).beat().seq == 1
        # One waits for the row, for a while; the others are sent away at once.
        assert {far.hear().error for far in waiting} == {"TooBusy", "DatabaseUnavailable"}


def test_a_withdrawn_job_is_cancelled_also_when_nobody_saw_it_happen(connect, database):
    far = connect()
    job_id = queue(database)
    far.accept(far.hear("job"))
    with database() as session:
        upkeep.withdraw(session, job_id, now() - timedelta(hours=1))
    far.beat("running", jobs=[{"id": job_id, "claim": 1, "slots": 1}])
    assert str(far.hear("cancel").id) == job_id


def test_a_deferred_task_that_was_queued_again_is_not_cancelled(connect, database):
    far = connect()
    job_id = queue(database)
    far.accept(far.hear("job"))
    with database() as session:
        queue_job(session, now(), id=job_id)
    running = [{"id": job_id, "claim": 1, "slots": 4}]
    far.beat("running", jobs=running)
    stored_as(database, "w", WorkerState.RUNNING)
    far.beat("running", jobs=running, maintenance_comments="x")
    queue(database)
    with pytest.raises(TimeoutError):
        far.hear("cancel", timeout=2)


@pytest.mark.parametrize("slots", [1e300, -1, 10**18, "many"])
def test_a_worker_with_an_absurd_number_of_slots_gets_none_and_the_others_theirs(connect, database, slots):
    far = connect()
    far.facts["concurrency"] = slots
    far.beat()
    stored_as(database, "w", WorkerState.IDLE)
    job_id = queue(database)
    assert str(connect(name="v", token=new_token("v")).hear("job").task_instance_id) == job_id


def test_a_worker_may_bring_ten_thousand_jobs_along(connect, database):
    far = connect()
    job_id = queue(database)
    far.accept(far.hear("job"))
    far.close()
    many = [{"id": str(uuid4()), "claim": 1} for _ in range(9_999)]
    again = connect(session=far.session, state="running", jobs=[*many, {"id": job_id, "claim": 1, "slots": 1}])
    assert again.end(SimpleNamespace(task_instance_id=job_id, claim=1)).type == "state_ack"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_report_that_the_database_refuses_takes_no_other_along(connect, database):
    far = connect()
    bad, good = queue(database), queue(database)
    offers = {str(offer.task_instance_id): offer for offer in (far.hear("job"), far.hear("job"))}
    with database() as session:
        session.execute(text("ALTER TABLE edge_otel_job ADD CONSTRAINT no_77 CHECK (exit_code <> 77)"))
    try:
        with database() as session:
            # Both wait for their rows, and are then written together.
            for job_id in (bad, good):
                jobs.lock(session, job_id)
                code = 77 if job_id == bad else 0
                far.say(Ended(id=offers[job_id].task_instance_id, claim=1, state="success", exit_code=code))
            far.beat()
        assert str(far.hear("state_ack").id) == good
        assert state(database, bad) is JobState.ASSIGNED
    finally:
        with database() as session:
            session.execute(text("ALTER TABLE edge_otel_job DROP CONSTRAINT no_77"))


def test_a_loop_that_fails_goes_on(monkeypatch):
    monkeypatch.setattr("edge_otel.api.hub.AFTER_DEFECT", 0)
    turns = []

    async def run():
        turns.append(1)
        if len(turns) < 3:
            raise KeyError

    asyncio.run(keep("test", run))
    assert len(turns) == 3
