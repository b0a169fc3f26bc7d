"""The channel over real sockets, on every database: registration, offers, reports, and what administrators want."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import requests
from channels import Far
from rows import queue_job, state_of
from served import FACTS, new_token
from websockets.exceptions import ConnectionClosed, InvalidStatus

from demo.wait import wait_for as wait_for_within
from edge_otel.messages import Accept, Decline, Ended, Hello
from edge_otel.models import jobs, tokens, upkeep, workers
from edge_otel.models.tables import Job, Token, Worker
from edge_otel.state import JobState, WorkerState


def wait_for(condition, what):
    wait_for_within(condition, what, timeout=15, pause=0.02)


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(autouse=True)
def frequent_looks(monkeypatch):
    monkeypatch.setattr("edge_otel.api.pulse.LOOK_INTERVAL", 0.5)


@pytest.fixture
def api(start_api):
    return start_api(channels=True)


@pytest.fixture
def connect(api, token):
    """Connects workers: by their name and token, of this API or another; they are registered unless told otherwise."""
    opened = []

    def open_(*, to=api, token=token, hello=True, name="w", session=None, max_queue=16, **fields):
        far = Far(to.url, token, name, session, max_queue)
        opened.append(far)
        if hello:
            answer = far.hello(**fields)
            assert answer.type == "welcome", answer
        return far

    yield open_
    for far in opened:
        with suppress(ConnectionClosed):
            far.close()


def queue(database, **fields):
    with database() as session:
        return queue_job(session, now(), **fields)


def state(database, job_id):
    with database() as session:
        return state_of(session, job_id)


def closed(far):
    """Return the close code, when the server has closed the channel."""
    with pytest.raises(ConnectionClosed) as ended:
        while True:
            far.hear()
    return ended.value.rcvd.code


def test_a_job_goes_from_the_queue_to_its_end(connect, database):
    far = connect()
    assert far.beat().state is WorkerState.IDLE
    job_id = queue(database, slots=2, carrier={"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"})
    offer = far.hear("job")
    assert (str(offer.task_instance_id), offer.claim, offer.concurrency_slots) == (job_id, 1, 2)
    assert offer.command == {"type": "ExecuteTask"}
    assert offer.carrier["traceparent"].startswith("00-aaaa")
    assert state(database, job_id) is JobState.ASSIGNED
    assert far.accept(offer).type == "confirmed"
    assert state(database, job_id) is JobState.RUNNING
    assert far.end(offer, exit_code=0, log_length=0).type == "state_ack"
    with database() as session:
        job = session.get(Job, job_id)
        assert (job.state, job.exit_code, job.worker, job.log_length) == (JobState.SUCCESS, 0, "w", 0)


def test_a_report_said_twice_is_answered_twice_alike(connect, database):
    far = connect()
    job_id = queue(database)
    offer = far.hear("job")
    assert [far.accept(offer).type for _ in range(2)] == ["confirmed"] * 2
    assert [far.end(offer, "failed", error="why").type for _ in range(2)] == ["state_ack"] * 2
    assert far.accept(offer).type == "stale"
    assert state(database, job_id) is JobState.FAILED


def test_a_report_under_another_claim_is_stale_and_changes_nothing(connect, database):
    far = connect()
    job_id = queue(database)
    offer = far.hear("job")
    assert far.accept(offer.model_copy(update={"claim": 2})).type == "stale"
    assert far.end(offer.model_copy(update={"claim": 0})).type == "stale"
    assert state(database, job_id) is JobState.ASSIGNED


def test_another_workers_job_is_stale(connect, database):
    other = connect(name="v", token=new_token("v"))
    job_id = queue(database)
    offer = other.hear("job")
    far = connect()
    assert far.accept(offer).type == "stale"
    assert far.end(offer).type == "stale"
    assert state(database, job_id) is JobState.ASSIGNED


def test_a_declined_job_is_offered_to_another_worker(connect, database):
    far = connect()
    job_id = queue(database)
    offer = far.hear("job")
    far.say(Decline(id=offer.task_instance_id, claim=offer.claim, reason="no room"))
    wait_for(lambda: state(database, job_id) is JobState.QUEUED, "the job to return")
    other = connect(name="v", token=new_token("v"))
    assert other.hear("job").claim == 2
    # Who declined is offered nothing until it has reported anew.
    second = queue(database)
    assert str(other.hear("job").task_instance_id) == second


def test_a_worker_that_declined_is_offered_jobs_again_after_its_next_report(connect, database):
    far = connect()
    queue(database)
    offer = far.hear("job")
    far.say(Decline(id=offer.task_instance_id, claim=offer.claim))
    far.beat()
    assert far.hear("job").claim == 2


def test_an_offer_returns_at_once_when_the_connection_breaks(connect, database):
    far = connect()
    job_id = queue(database)
    far.hear("job")
    far.close()
    wait_for(lambda: state(database, job_id) is JobState.QUEUED, "the job to return")
    assert connect().hear("job").claim == 2


def test_a_running_job_outlives_its_connection(connect, database):
    far = connect()
    job_id = queue(database)
    offer = far.hear("job")
    far.accept(offer)
    far.close()
    again = connect(session=far.session, state="running", jobs=[{"id": job_id, "claim": 1, "slots": 1}])
    assert again.end(offer).type == "state_ack"
    assert state(database, job_id) is JobState.SUCCESS


def test_slots_are_never_exceeded_and_a_freed_one_is_filled_at_once(connect, database):
    far = connect()
    ids = [queue(database, slots=2) for _ in range(3)]
    first, second = far.hear("job"), far.hear("job")
    far.accept(first)
    far.accept(second)
    held = [{"id": str(offer.task_instance_id), "claim": 1, "slots": 2} for offer in (first, second)]
    far.beat("running", jobs=held)
    assert [state(database, job_id) for job_id in ids].count(JobState.QUEUED) == 1
    far.say(Ended.model_validate({"id": first.task_instance_id, "claim": 1, "state": "success"}))
    assert {far.hear().type, far.hear().type} == {"state_ack", "job"}


def test_jobs_that_a_worker_brings_along_hold_their_slots(connect, database):
    job_id = queue(database, slots=3)
    far = connect()
    far.accept(far.hear("job"))
    far.close()
    again = connect(session=far.session, state="running", jobs=[{"id": job_id, "claim": 1, "slots": 3}])
    queue(database, slots=2)
    small = queue(database, slots=1)
    assert str(again.hear("job").task_instance_id) == small


def test_a_worker_that_comes_without_a_job_it_was_offered_frees_it_at_once(connect, database, api, token, start_api):
    far = connect()
    job_id = queue(database)
    far.hear("job")
    # Over another server, while the first still thinks that it has the connection.
    again = connect(to=start_api(channels=True), session=far.session, state="idle")
    assert again.hear("job").claim == 2
    assert far.hear("bye").reason
    assert state(database, job_id) is JobState.ASSIGNED


def test_jobs_that_are_not_the_workers_any_more_are_stale_at_hello(connect, database):
    far = connect()
    gone, theirs, mine, finished = (queue(database) for _ in range(4))
    for _ in range(4):
        far.accept(far.hear("job"))
    with database() as session:
        upkeep.withdraw(session, gone, now())
        jobs.lock(session, theirs).worker = "v"
    far.close()
    missing = str(uuid4())
    running = [{"id": id_, "claim": 1, "slots": 1} for id_ in (gone, theirs, mine, missing)]
    again = connect(session=far.session, state="running", jobs=[*running, {"id": finished, "claim": 1}])
    assert {str(again.hear("stale").id) for _ in range(3)} == {gone, theirs, missing}
    assert again.end(again_offer(mine)).type == "state_ack"


def again_offer(job_id):
    from types import SimpleNamespace

    return SimpleNamespace(task_instance_id=job_id, claim=1)


def test_a_withdrawn_job_is_cancelled(connect, database):
    far = connect()
    job_id = queue(database)
    offer = far.hear("job")
    far.accept(offer)
    far.beat("running", jobs=[{"id": job_id, "claim": 1, "slots": 1}])
    with database() as session:
        upkeep.withdraw(session, job_id, now())
    cancel = far.hear("cancel")
    assert (str(cancel.id), cancel.claim) == (job_id, 1)
    assert far.end(offer, "failed").type == "stale"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: workers.request_maintenance(s, "w", "why", now(), by="a"), ("maintenance request", None, None)),
        (lambda s: workers.request_shutdown(s, "w", now(), by="a"), ("shutdown request", None, None)),
        (lambda s: workers.set_concurrency(s, "w", 7), ("idle", 7, None)),
        (lambda s: workers.change_queues(s, "w", ["q"], []), ("idle", None, ["q"])),
    ],
    ids=["maintenance", "shutdown", "concurrency", "queues"],
)
def test_what_an_administrator_wants_is_told_without_a_heartbeat(connect, database, change, expected):
    far = connect()
    far.beat()
    stored_as(database, "w", WorkerState.IDLE)
    with database() as session:
        change(session)
    told = far.hear("settings")
    assert (told.state, told.concurrency, told.queues) == expected
    assert told.seq == 1
    assert far.beat().state == ("maintenance request" if "maintenance" in expected[0] else expected[0])


def stored_as(database, name, state):
    def there():
        with database() as session:
            worker = session.get(Worker, name)
            return worker is not None and worker.state == state

    wait_for(there, f"{name} to be stored as {state}")


def test_a_worker_in_maintenance_is_offered_nothing_until_it_ends(connect, database):
    far = connect()
    far.beat()
    with database() as session:
        workers.request_maintenance(session, "w", "why", now(), by="admin")
    assert far.hear("settings").maintenance_comments == "why"
    assert far.beat("maintenance mode", maintenance_comments="why").state is WorkerState.MAINTENANCE_MODE
    stored_as(database, "w", WorkerState.MAINTENANCE_MODE)
    job_id = queue(database)
    other = connect(name="v", token=new_token("v"))
    assert str(other.hear("job").task_instance_id) == job_id
    second = queue(database)
    other.close()
    with database() as session:
        workers.end_maintenance(session, "w", now(), by="admin")
    assert far.hear("settings").state in (WorkerState.MAINTENANCE_EXIT, WorkerState.IDLE)
    assert far.beat("idle").state is WorkerState.IDLE
    assert {str(far.hear("job").task_instance_id) for _ in range(2)} == {job_id, second}


def test_maintenance_that_a_lost_worker_never_heard_of_is_asked_for_again(connect, database):
    far = connect()
    far.beat()
    stored_as(database, "w", WorkerState.IDLE)
    far.close()
    with database() as session:
        workers.request_maintenance(session, "w", "why", now(), by="admin")
    with database() as session:
        workers.expire_silent(session, 30, now() + timedelta(hours=1))
    stored_as(database, "w", WorkerState.OFFLINE_MAINTENANCE)
    again = connect(session=far.session, hello=False)
    assert again.hello("idle").state is WorkerState.MAINTENANCE_REQUEST


def test_queues_that_were_changed_while_the_worker_was_away_are_what_it_is_told(connect, database):
    far = connect(queues=["a"])
    far.close()
    with database() as session:
        workers.change_queues(session, "w", ["b"], ["a"])
    assert connect(session=far.session, hello=False).hello("idle", queues=["a"]).queues == ["b"]
    assert connect(hello=False).hello(queues=["a"]).queues == ["a"]


def test_local_maintenance_is_stored_with_its_comment(connect, database):
    far = connect()
    far.beat("maintenance mode", maintenance_comments="a new disk", maintenance_origin="local")
    stored_as(database, "w", WorkerState.MAINTENANCE_MODE)
    with database() as session:
        assert session.get(Worker, "w").maintenance_comment == "a new disk"


def test_the_last_heartbeat_is_stored_though_the_channel_ends_with_it(connect, database):
    far = connect()
    far.beat("offline")
    far.close()
    stored_as(database, "w", WorkerState.OFFLINE)


def test_a_new_daemon_takes_the_name_over_and_the_old_one_is_told(connect):
    far = connect()
    connect()
    assert far.hear("error").error == "SessionReplaced"
    assert closed(far) == 4409


def test_a_new_daemon_on_another_server_takes_the_name_over(connect, start_api):
    far = connect()
    connect(to=start_api(channels=True))
    assert far.hear("error").error == "SessionReplaced"
    assert closed(far) == 4409


def test_the_same_daemon_on_a_new_channel_leaves_the_old_one_with_a_bye(connect):
    far = connect()
    connect(session=far.session)
    assert far.hear("bye").reason
    assert closed(far) == 1012


def test_a_worker_that_polls_under_the_same_session_ends_its_channel(connect, api, token):
    far = connect()
    body = {"state": "idle", "sysinfo": FACTS, "session": far.session, "jobs": []}
    assert api.call("POST", "/v1/worker/w", token, json=body).status_code == 200
    assert far.hear("bye").reason


def test_a_worker_that_was_removed_is_told_so(connect, database):
    far = connect()
    far.beat("offline")
    stored_as(database, "w", WorkerState.OFFLINE)
    with database() as session:
        workers.remove(session, "w")
    assert far.hear("error").error == "WorkerNotFound"
    assert closed(far) == 4404


def test_a_revoked_token_closes_its_channel(connect, database, token):
    far = connect()
    with database() as session:
        tokens.revoke(session, token[4:20], now())
    assert far.hear("error").error == "Forbidden"
    assert closed(far) == 4403


def test_an_expired_token_closes_its_channel(connect, database, token):
    far = connect()
    with database() as session:
        session.get(Token, token[4:20]).expires_at = now() - timedelta(seconds=1)
    assert far.hear("error").error == "Forbidden"


def test_the_use_of_a_token_by_a_channel_is_recorded(connect, database, token):
    connect()
    with database() as session:
        assert session.get(Token, token[4:20]).last_used_at is not None


@pytest.mark.parametrize("given", ["", "Bearer ewt_0000.x", "Basic x"])
def test_an_upgrade_without_a_valid_token_is_403(api, given):
    with pytest.raises(InvalidStatus) as refused:
        Far(api.url, given)
    response = refused.value.response
    assert response.status_code == 403
    assert b'"error":"Forbidden"' in response.body
    assert b"token" not in response.body


@pytest.mark.parametrize(
    ("hello", "code", "error"),
    [
        ({"name": "v"}, 4403, "Forbidden"),
        ({"queues": ["elsewhere"]}, 4403, "Forbidden"),
        ({"team_name": "elsewhere"}, 4403, "Forbidden"),
        ({"sysinfo": {**FACTS, "airflow_version": "2.10.0"}}, 4400, "VersionRefused"),
    ],
)
def test_a_hello_that_is_not_allowed_is_refused(api, database, hello, code, error):
    far = Far(api.url, new_token("w", queues=["q"]))
    answer = far.hello(**({"queues": ["q"]} | hello))
    assert (answer.type, answer.error) == ("error", error)
    assert closed(far) == code
    with database() as session:
        assert session.get(Worker, "w") is None


def test_a_name_that_another_token_holds_is_refused(connect, api):
    connect()
    far = Far(api.url, new_token("w"))
    answer = far.hello()
    assert (answer.type, answer.error) == ("error", "NameTaken")
    assert closed(far) == 4409


def test_a_first_message_that_is_no_hello_is_refused(connect):
    far = connect(hello=False)
    far.say(Accept(id=uuid4(), claim=1))
    assert far.hear().error == "BadInput"
    assert closed(far) == 4422


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


def test_the_pace_is_stretched_so_that_the_sum_stays_within_the_setting(start_api, connect, database):
    api = start_api(channels=True, heartbeats_per_second=1, heartbeat_interval=1)
    group = new_token("g-*")
    fars = [Far(api.url, group, f"g-{number}") for number in range(4)]
    assert [far.hello().settings.heartbeat_interval for far in fars] == [1, 2, 3, 4]
    # Those that came first are told in time.
    assert fars[0].hear("settings").settings.heartbeat_interval == 4


def test_heartbeats_are_written_in_batches(connect, database):
    far = connect()
    with database() as session:
        before = session.get(Worker, "w").last_heartbeat
    far.facts["load1"] = 7.5

    def written():
        with database() as session:
            return session.get(Worker, "w").sysinfo.get("load1") == 7.5

    for _ in range(200):
        far.beat()
    wait_for(written, "the heartbeat to be written")
    with database() as session:
        assert session.get(Worker, "w").last_heartbeat > before


def test_a_worker_that_does_not_read_loses_its_channel_and_its_offers(connect, database, monkeypatch):
    monkeypatch.setattr("edge_otel.api.link.MAX_UNSENT", 200_000)
    slow = connect(max_queue=1)
    slow.facts["concurrency"] = 1000
    slow.beat()
    ids = [queue(database, workload='{"type": "' + "x" * 1_000_000 + '"}') for _ in range(20)]
    other = connect(name="v", token=new_token("v"))
    assert other.beat().seq == 1
    wait_for(lambda: state(database, ids[-1]) is JobState.QUEUED, "the offers to return")


def test_the_server_is_ready_with_its_hub_alone(api, start_api):
    assert api.call("GET", "/readyz").status_code == 200
    silent = start_api()
    assert silent.call("GET", "/readyz").status_code == 503


def test_a_server_that_stops_closes_its_channels_as_restarting(connect, start_api):
    api = start_api(channels=True)
    far = connect(to=api)
    api.stop()
    assert closed(far) == 1012
    with pytest.raises(requests.ConnectionError):
        api.call("GET", "/livez")


def test_a_worker_without_a_session_of_its_own_is_no_channel_worker(connect):
    far = connect(hello=False)
    text = Hello.model_validate({"state": "idle", "name": "w", "session": "s", "sysinfo": FACTS}).model_dump_json()
    far.say(text.replace('"session":"s"', '"session":null'))
    assert far.hear().error == "BadInput"
