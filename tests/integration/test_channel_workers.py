"""Workers over the channel, on every database: who may connect, and what administrators want of them."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest
from channels import Far, close_code, now, queue, stored_as, wait_for
from served import FACTS, new_token
from websockets.exceptions import InvalidStatus

from edge_otel.models import tokens, wishes, workers
from edge_otel.models.tables import Token, Worker
from edge_otel.models.wakeup import announce_worker
from edge_otel.state import WorkerState


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: wishes.request_maintenance(s, "w", "why", now(), by="a"), ("maintenance request", None, None)),
        (lambda s: wishes.request_shutdown(s, "w", now(), by="a"), ("shutdown request", None, None)),
        (lambda s: wishes.set_concurrency(s, "w", 7, now(), by="ann"), ("idle", 7, None)),
        (lambda s: wishes.change_queues(s, "w", ["q"], [], now(), by="ann"), ("idle", None, ["q"])),
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


def test_a_worker_in_maintenance_is_offered_nothing_until_it_ends(connect, database):
    far = connect()
    far.beat()
    with database() as session:
        wishes.request_maintenance(session, "w", "why", now(), by="admin")
    assert far.hear("settings").maintenance_comments == "why"
    assert far.beat("maintenance mode", maintenance_comments="why").state is WorkerState.MAINTENANCE_MODE
    stored_as(database, "w", WorkerState.MAINTENANCE_MODE)
    job_id = queue(database)
    other = connect(name="v", token=new_token("v"))
    assert str(other.hear("job").task_instance_id) == job_id
    second = queue(database)
    other.close()
    with database() as session:
        wishes.end_maintenance(session, "w", now(), by="admin")
    assert far.hear("settings").state in (WorkerState.MAINTENANCE_EXIT, WorkerState.IDLE)
    assert far.beat("idle").state is WorkerState.IDLE
    assert {str(far.hear("job").task_instance_id) for _ in range(2)} == {job_id, second}


def test_maintenance_that_a_lost_worker_never_heard_of_is_asked_for_again(connect, database):
    far = connect()
    far.beat()
    stored_as(database, "w", WorkerState.IDLE)
    far.close()
    with database() as session:
        wishes.request_maintenance(session, "w", "why", now(), by="admin")
    with database() as session:
        workers.expire_silent(session, 30, now() + timedelta(hours=1))
    stored_as(database, "w", WorkerState.OFFLINE_MAINTENANCE)
    again = connect(session=far.session, hello=False)
    assert again.hello("idle").state is WorkerState.MAINTENANCE_REQUEST


def test_queues_that_were_changed_while_the_worker_was_away_are_what_it_is_told(connect, database):
    far = connect(queues=["a"])
    far.close()
    with database() as session:
        wishes.change_queues(session, "w", ["b"], ["a"], now(), by="ann")
    assert connect(session=far.session, hello=False).hello("idle", queues=["a"]).queues == ["b"]
    assert connect(hello=False).hello(queues=["a"]).queues == ["a"]


def test_local_maintenance_is_stored_with_its_comment(connect, database):
    far = connect()
    far.beat("maintenance mode", maintenance_comments="a new disk", maintenance_origin="local")
    stored_as(database, "w", WorkerState.MAINTENANCE_MODE)
    with database() as session:
        assert session.get(Worker, "w").maintenance_comment == "a new disk"


@pytest.mark.parametrize("origin", ["local", "automatic"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (wishes.change_comment, ("maintenance mode", None)),
        (wishes.request_maintenance, ("maintenance request", "admin")),
    ],
    ids=["comment", "takeover"],
)
def test_a_heartbeat_that_is_not_written_yet_does_not_undo_what_is_done_of_the_sites_maintenance(
    connect, database, origin, change, expected
):
    own = {"maintenance_comments": "lunch", "maintenance_origin": origin}
    state, comment, whose = expected[0], "fire", expected[1] or origin
    far = connect()
    far.beat("maintenance mode", **own)
    stored_as(database, "w", WorkerState.MAINTENANCE_MODE)
    far.facts["load1"] = 7.5
    with database() as session:
        change(session, "w", comment, now(), by="ann")
        session.flush()
        # The row is locked: this one waits in memory.
        far.beat("maintenance mode", **own)

    def stored(load):
        with database() as session:
            worker = session.get(Worker, "w")
            found = (worker.state, worker.maintenance_comment, worker.maintenance_origin)
            return found if worker.sysinfo.get("load1") == load else None

    wait_for(lambda: stored(7.5), "the heartbeat to be written")
    assert stored(7.5) == (state, comment, whose)
    # What it has begun itself is told to it first.
    while (told := far.hear("settings")).maintenance_comments != comment:
        assert told.maintenance_comments == "lunch"
    assert told.maintenance_origin == whose
    far.facts["load1"] = 8.5
    heard = {"maintenance_comments": comment, "maintenance_origin": None if whose == "admin" else origin}
    told = far.beat("maintenance mode", **heard)
    assert (told.state, told.maintenance_comments) == ("maintenance mode", comment)
    wait_for(lambda: stored(8.5), "the heartbeat to be written")
    assert stored(8.5) == ("maintenance mode", comment, whose)


def test_a_worker_of_another_team_is_refused_over_the_channel(connect, channel_api):
    connect(token=new_token("w", team="blue")).close()
    answer = Far(channel_api.url, new_token("w", team="red")).hello()
    assert (answer.type, answer.error) == ("error", "NameTaken")
    assert "blue" not in answer.detail


def test_the_last_heartbeat_is_stored_though_the_channel_ends_with_it(connect, database):
    far = connect()
    far.beat("offline")
    far.close()
    stored_as(database, "w", WorkerState.OFFLINE)


def test_a_new_daemon_takes_the_name_over_and_the_old_one_is_told(connect):
    far = connect()
    connect()
    assert far.hear("error").error == "SessionReplaced"
    assert close_code(far) == 4409


def test_a_new_daemon_on_another_server_takes_the_name_over(connect, start_api):
    far = connect()
    connect(to=start_api(channels=True))
    assert far.hear("error").error == "SessionReplaced"
    assert close_code(far) == 4409


def test_the_same_daemon_on_a_new_channel_leaves_the_old_one_with_a_bye(connect):
    far = connect()
    connect(session=far.session)
    assert far.hear("bye").reason
    assert close_code(far) == 1012


def test_a_worker_that_polls_under_the_same_session_ends_its_channel(connect, channel_api, token):
    far = connect()
    body = {"state": "idle", "sysinfo": FACTS, "session": far.session, "jobs": []}
    assert channel_api.call("POST", "/v1/worker/w", token, json=body).status_code == 200
    assert far.hear("bye").reason


def test_a_worker_that_was_removed_is_told_so(connect, database):
    far = connect()
    far.beat("offline")
    stored_as(database, "w", WorkerState.OFFLINE)
    with database() as session:
        wishes.remove(session, "w", now())
    assert far.hear("error").error == "WorkerNotFound"
    assert close_code(far) == 4404


def test_a_revoked_token_closes_its_channel(connect, database, token):
    far = connect()
    with database() as session:
        tokens.revoke(session, token[4:20], now())
    assert far.hear("error").error == "Forbidden"
    assert close_code(far) == 4403


def test_an_expired_token_closes_its_channel(connect, database, token):
    far = connect()
    with database() as session:
        session.get(Token, token[4:20]).expires_at = now() - timedelta(seconds=1)
    assert far.hear("error").error == "Forbidden"


def test_the_use_of_a_token_by_a_channel_is_recorded_for_as_long_as_it_is_open(connect, database, token, monkeypatch):
    monkeypatch.setattr("edge_otel.api.pulse.TOKEN_USE_INTERVAL", 0.5)
    connect()
    with database() as session:
        session.get(Token, token[4:20]).last_used_at = now() - timedelta(hours=1)

    def recorded():
        with database() as session:
            return now() - session.get(Token, token[4:20]).last_used_at < timedelta(minutes=1)

    wait_for(recorded, "the use to be recorded")


@pytest.mark.parametrize("given", ["", "Bearer ewt_0000.x", "Basic x"])
def test_an_upgrade_without_a_valid_token_is_403(channel_api, given):
    with pytest.raises(InvalidStatus) as refused:
        Far(channel_api.url, given)
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
def test_a_hello_that_is_not_allowed_is_refused(channel_api, database, hello, code, error):
    far = Far(channel_api.url, new_token("w", queues=["q"]))
    answer = far.hello(**({"queues": ["q"]} | hello))
    assert (answer.type, answer.error) == ("error", error)
    assert close_code(far) == code
    with database() as session:
        assert session.get(Worker, "w") is None


def test_a_name_that_another_token_holds_is_refused(connect, channel_api):
    connect()
    far = Far(channel_api.url, new_token("w"))
    answer = far.hello()
    assert (answer.type, answer.error) == ("error", "NameTaken")
    assert close_code(far) == 4409


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


def test_the_fleet_is_cared_for_however_often_one_worker_is_spoken_of(start_api, connect, database):
    api = start_api(channels=True, heartbeats_per_second=1, heartbeat_interval=1)
    group = new_token("g-*")
    fars = [connect(to=api, name=f"g-{number}", token=group) for number in range(3)]
    paces = []

    def told():
        with database() as session:
            announce_worker(session, "g-0")
        with suppress(TimeoutError):
            paces.append(fars[0].hear("settings", timeout=0.05).settings)
        return any(pace is not None and pace.heartbeat_interval == 3 for pace in paces)

    wait_for(told, "the new pace")
