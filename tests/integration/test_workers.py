"""Workers: who holds a name, what heartbeats and administrators make of the row, and its history."""

from __future__ import annotations

from datetime import timedelta

import pytest
from rows import NOW, ask, beat, claim, history, queue_job, register, register_as, state_of

from edge_otel.errors import (
    JobsUnsettled,
    NameTaken,
    SessionReplaced,
    WorkerActive,
    WorkerNotFound,
)
from edge_otel.models import tokens, upkeep, wishes, workers
from edge_otel.models.tables import Worker
from edge_otel.state import JobState, WorkerState
from edge_otel.wire import LogLine

S = WorkerState
SECOND = timedelta(seconds=1)
SILENCE = timedelta(seconds=150)


def test_a_new_worker_is_stored_with_what_it_reports(database):
    with database() as session:
        register(session, "w", NOW, queues=["a", "b"], jobs_active=2, team="red", trace_id="ab" * 16)
    with database() as session:
        worker = workers.get(session, "w")
        assert (worker.state, worker.queues, worker.team, worker.jobs_active) == (S.STARTING, ["a", "b"], "red", 2)
        assert (worker.slots, worker.slots_wanted, worker.token_id, worker.session) == (4, None, "t1", "s1")
        assert worker.first_online == worker.last_heartbeat == NOW
        assert worker.sysinfo["airflow_version"] == "3.3.2"
        assert history(session) == [(None, S.STARTING, "registered")]
        assert workers.events_of(session, "w")[0].trace_id == "ab" * 16


def test_names_differ_by_case_and_end(database):
    with database() as session:
        for name in ("site", "Site", "site.", "sité".encode().hex()):
            register(session, name, NOW, token_id=None)
        assert len(workers.every(session)) == 4


def test_the_same_token_takes_a_name_over_at_once(database):
    with database() as session:
        register(session, "w", NOW)
    with database() as session:
        worker = register(session, "w", NOW + SECOND, session="s2")
        assert (worker.session, worker.first_online) == ("s2", NOW)
    with database() as session, pytest.raises(SessionReplaced):
        beat(session, NOW + 2 * SECOND)


@pytest.mark.parametrize("other", ["t2", None])
def test_another_credential_does_not_get_an_active_name(database, other):
    with database() as session:
        register(session, "w", NOW)
    with database() as session, pytest.raises(NameTaken, match="'w' is active in state 'starting'"):
        register(session, "w", NOW + SECOND, token_id=other)


def test_two_holders_of_the_shared_secret_do_not_take_over_from_each_other(database):
    with database() as session:
        register(session, "w", NOW, token_id=None)
        with pytest.raises(NameTaken):
            register(session, "w", NOW + SECOND, token_id=None)


def test_the_token_that_a_worker_was_rotated_to_takes_over(database):
    with database() as session:
        scope = {"worker": "w", "queues": None, "team": None, "lifetime": timedelta(days=1), "now": NOW, "by": None}
        old, _ = tokens.create(session, **scope)
        session.flush()
        new, _ = tokens.rotate(session, old.id, overlap=timedelta(hours=1), now=NOW, by=None)
        session.flush()
        register(session, "w", NOW, token_id=old.id)
        register(session, "w", NOW + SECOND, token_id=new.id)
        with pytest.raises(NameTaken):
            register(session, "w", NOW + SECOND, token_id=old.id)


@pytest.mark.parametrize(("after", "free"), [(SILENCE, False), (SILENCE + SECOND, True)])
def test_a_silent_workers_name_is_free(database, after, free):
    with database() as session:
        register(session, "w", NOW)
        if free:
            assert register(session, "w", NOW + after, token_id="t2").token_id == "t2"
        else:
            with pytest.raises(NameTaken):
                register(session, "w", NOW + after, token_id="t2")


@pytest.mark.parametrize("state", [S.OFFLINE, S.OFFLINE_MAINTENANCE, S.UNKNOWN])
def test_the_name_of_a_worker_that_left_is_free(database, state):
    with database() as session:
        register_as(session, state)
        assert register(session, "w", NOW + SECOND, token_id="t2").token_id == "t2"


@pytest.mark.parametrize("state", [S.IDLE, S.OFFLINE, S.UNKNOWN])
@pytest.mark.parametrize(
    ("theirs", "mine", "token_id"), [("blue", "red", "t2"), (None, "red", "t1"), ("blue", None, None)]
)
def test_the_name_of_another_teams_worker_is_free_when_that_is_removed(database, state, theirs, mine, token_id):
    with database() as session:
        worker = register_as(session, state, team=theirs)
        line = {"number": 1, "time": NOW, "level": 20, "text": "job 1: offered: secret"}
        workers.worker_log.append(session, worker, [("source", LogLine.model_validate(line))])
    later = NOW + SILENCE + SECOND
    with database() as session, pytest.raises(NameTaken, match=r"'w' is of another team.* Remove it first") as refused:
        register(session, "w", later, team=mine, token_id=token_id)
    assert not {"blue", "red", "idle"} & set(str(refused.value).split())
    with database() as session:
        assert workers.get(session, "w").team == theirs
        workers.get(session, "w").state = S.OFFLINE
        session.flush()
        ask(session, wishes.remove, NOW)
        assert register(session, "w", later, team=mine, token_id=token_id).team == mine
        assert workers.worker_log.tail(session, "w") == []
        assert history(session) == [(None, S.STARTING, "registered")]


def test_a_heartbeat_of_a_worker_nobody_knows_is_refused(database):
    with database() as session, pytest.raises(WorkerNotFound, match="'w'"):
        beat(session, NOW)


def test_heartbeats_store_facts_and_append_an_event_only_when_the_state_changes(database):
    with database() as session:
        register(session, "w", NOW)
        for second in range(1, 4):
            beat(session, NOW + second * SECOND)
        worker = beat(session, NOW + 4 * SECOND, S.RUNNING, jobs_active=1)
        assert (worker.state, worker.jobs_active, worker.last_heartbeat) == (S.RUNNING, 1, NOW + 4 * SECOND)
        assert history(session)[1:] == [(S.STARTING, S.IDLE, "heartbeat"), (S.IDLE, S.RUNNING, "heartbeat")]


@pytest.mark.parametrize("slots", [-1, 2**31, "many", True, 1e300])
def test_an_odd_number_of_slots_does_not_break_the_row(database, slots):
    facts = {"airflow_version": "3.3.2", "edge_provider_version": "0.1.0", "concurrency": slots}
    with database() as session:
        assert register(session, "w", NOW, sysinfo=facts).slots in (None, 1)
    with database() as session:
        assert workers.get(session, "w").name == "w"


def test_silence_expires_workers_once_and_keeps_maintenance(database):
    with database() as session:
        register(session, "w", NOW)
        register(session, "m", NOW, state=S.MAINTENANCE_MODE)
        register(session, "slow", NOW, heartbeat_interval=60.0)
        register(session, "left", NOW, state=S.OFFLINE)
    with database() as session:
        assert workers.expire_silent(session, 30.0, NOW + SILENCE) == []
        assert set(workers.expire_silent(session, 30.0, NOW + SILENCE + SECOND)) == {"w", "m"}
        session.flush()
        assert workers.expire_silent(session, 30.0, NOW + SILENCE + SECOND) == []
        states = {worker.name: worker.state for worker in workers.every(session)}
        assert states == {"w": S.UNKNOWN, "m": S.OFFLINE_MAINTENANCE, "slow": S.STARTING, "left": S.OFFLINE}
        assert history(session)[-1] == (S.STARTING, S.UNKNOWN, "expired")


def test_a_worker_that_says_how_rarely_it_reports_is_given_that_time(database):
    with database() as session:
        register(session, "w", NOW)
        beat(session, NOW, heartbeat_interval=300.0)
    with database() as session:
        assert workers.expire_silent(session, 30.0, NOW + 10 * SILENCE) == []
        assert workers.expire_silent(session, 30.0, NOW + 10 * SILENCE + SECOND) == ["w"]


def test_a_worker_is_removed_with_its_history_once_it_is_gone(database):
    with database() as session:
        worker = register(session, "w", NOW)
        with pytest.raises(WorkerActive):
            ask(session, wishes.remove, NOW)
        worker.state = S.UNKNOWN
        session.flush()
        ask(session, wishes.remove, NOW)
    with database() as session:
        assert workers.every(session) == []
        assert workers.events_of(session, "w") == []
        with pytest.raises(WorkerNotFound):
            ask(session, wishes.remove, NOW)


@pytest.mark.parametrize("state", JobState)
def test_a_worker_that_is_gone_is_kept_for_the_jobs_that_ran_there_alone(database, state):
    with database() as session:
        worker = register_as(session, S.UNKNOWN, "w")
        queue_job(session, NOW)
        claim(session, worker, NOW).state = state
        register_as(session, S.UNKNOWN, "v")
        session.flush()
        wishes.remove(session, "v", NOW)
        if state is JobState.RUNNING:
            with pytest.raises(JobsUnsettled, match=r"settled yet \(1\). The scheduler does that within 2 min"):
                ask(session, wishes.remove, NOW)
        else:
            ask(session, wishes.remove, NOW)


def test_what_people_did_is_found_behind_any_number_of_changes(database):
    with database() as session:
        register(session, "w", NOW)
        ask(session, wishes.set_concurrency, 9, NOW, by="ann")
        for second in range(1, 8):
            beat(session, NOW + second * SECOND, S.RUNNING if second % 2 else S.IDLE)
        newest = [event.at for event in workers.events_of(session, "w", 3)]
        assert newest == [NOW + second * SECOND for second in (7, 6, 5)]
        assert [event.detail for event in workers.events_of(session, "w", 3, actions=True)] == ["slots: 4 to 9"]


def test_what_the_worker_itself_changed_nobody_did(database):
    with database() as session:
        register(session, "w", NOW)
        ask(session, wishes.change_queues, ["a"], [], NOW, by="ann")
        ask(session, wishes.change_queues, ["b"], [], NOW + SECOND, by=None)
        said = [(event.cause, event.detail) for event in workers.events_of(session, "w")]
        assert said[:2] == [("worker", "queues: a, b"), ("admin:ann", "queues: a")]
        assert [event.cause for event in workers.events_of(session, "w", actions=True)] == ["admin:ann"]


def test_of_what_people_did_the_last_hundred_are_told(database):
    with database() as session:
        register(session, "w", NOW)
        for second in range(101):
            ask(session, wishes.set_concurrency, second + 1, NOW + second * SECOND, by="ann")
        told = workers.events_of(session, "w", actions=True)
        assert [event.at for event in told] == [NOW + second * SECOND for second in range(100, 0, -1)]


def test_old_events_are_purged_up_to_a_limit(database, monkeypatch):
    monkeypatch.setattr(workers, "EVENT_PURGE_LIMIT", 2)
    with database() as session:
        register(session, "w", NOW)
        for second in range(5):
            beat(session, NOW + second * SECOND, S.RUNNING if second % 2 else S.IDLE)
        session.flush()
        assert [workers.purge_events(session, NOW + 4 * SECOND) for _ in range(4)] == [2, 2, 1, 0]
        assert len(workers.events_of(session, "w")) == 1


def test_a_job_of_another_worker_is_not_returned_with_this_ones_offers(database):
    with database() as session:
        first, second = register(session, "w", NOW), register(session, "v", NOW)
        mine, other = queue_job(session, NOW), queue_job(session, NOW + SECOND)
        assert [claim(session, first, NOW).id, claim(session, second, NOW).id] == [mine, other]
        assert upkeep.return_offers_of(session, "w", [], NOW) == ["default"]
        assert state_of(session, other) is JobState.ASSIGNED
        assert session.get(Worker, "v").state == S.STARTING
