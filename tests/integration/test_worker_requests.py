"""What administrators ask of workers, and workers of themselves: maintenance, shutdown, queues, slots."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from rows import NOW, ask, beat, history, register, register_as

from edge_otel.errors import BadInput, QueueNotAllowed, WorkerGone
from edge_otel.models import tokens, workers
from edge_otel.state import WorkerState

S = WorkerState
SECOND = timedelta(seconds=1)


def test_a_maintenance_request_stands_until_the_worker_obeys_and_keeps_its_comment(database):
    with database() as session:
        register(session, "w", NOW)
        ask(session, workers.request_maintenance, "disk swap", NOW, by="ann")
        worker = beat(session, NOW + SECOND, S.RUNNING, jobs_active=1)
        assert (worker.state, worker.maintenance_comment) == (S.MAINTENANCE_REQUEST, "disk swap")
        worker = beat(session, NOW + SECOND, S.MAINTENANCE_PENDING, jobs_active=1)
        worker = beat(session, NOW + SECOND, S.MAINTENANCE_MODE)
        assert (worker.state, worker.maintenance_comment, worker.maintenance_origin) == (
            S.MAINTENANCE_MODE,
            "disk swap",
            "admin",
        )
        ask(session, workers.end_maintenance, NOW, by="bob")
        assert worker.state == S.MAINTENANCE_EXIT
        worker = beat(session, NOW + SECOND, S.MAINTENANCE_MODE)
        assert (worker.state, worker.maintenance_comment, worker.maintenance_origin) == (S.IDLE, None, None)
        assert [cause for *_, cause in history(session)] == [
            "registered",
            "admin:ann",
            "heartbeat",
            "heartbeat",
            "admin:bob",
            "heartbeat",
        ]


@pytest.mark.parametrize("origin", ["local", "automatic"])
def test_maintenance_of_the_workers_own_carries_its_comment_and_origin(database, origin):
    with database() as session:
        register(session, "w", NOW)
        worker = beat(session, NOW, S.MAINTENANCE_MODE, maintenance_comments="hot", maintenance_origin=origin)
        assert (worker.maintenance_comment, worker.maintenance_origin) == ("hot", origin)
        worker = beat(session, NOW, S.IDLE)
        assert (worker.maintenance_comment, worker.maintenance_origin) == (None, None)


def test_an_administrator_who_takes_over_an_automatic_maintenance_is_not_overruled_by_a_worker_that_recovers(database):
    with database() as session:
        register(session, "w", NOW)
        own = {"maintenance_comments": "Disk at 98 %", "maintenance_origin": "automatic"}
        beat(session, NOW, S.MAINTENANCE_MODE, **own)
        ask(session, workers.request_maintenance, None, NOW, by="ann")
        worker = beat(session, NOW, S.MAINTENANCE_MODE, **own)
        assert (worker.state, worker.maintenance_origin) == (S.MAINTENANCE_REQUEST, "admin")
        worker = beat(session, NOW, S.IDLE)  # it has not heard, and is well again
        assert (worker.state, worker.maintenance_origin) == (S.MAINTENANCE_REQUEST, "admin")
        worker = beat(session, NOW, S.MAINTENANCE_MODE)
        assert (worker.state, worker.maintenance_origin) == (S.MAINTENANCE_MODE, "admin")


def test_a_person_at_the_site_who_takes_over_an_automatic_maintenance_without_a_word_is_known(database):
    with database() as session:
        register(session, "w", NOW)
        beat(session, NOW, S.MAINTENANCE_MODE, maintenance_comments="Disk at 98 %", maintenance_origin="automatic")
        worker = beat(session, NOW, S.MAINTENANCE_MODE, maintenance_comments="", maintenance_origin="local")
        assert worker.maintenance_origin == "local"


def test_maintenance_of_a_worker_that_is_gone_waits_for_it(database):
    with database() as session:
        register_as(session, S.OFFLINE)
        ask(session, workers.request_maintenance, "later", NOW, by="ann")
        assert register(session, "w", NOW + SECOND).state == S.MAINTENANCE_REQUEST
        assert workers.get(session, "w").maintenance_comment == "later"


def test_a_shutdown_request_is_for_a_connected_worker_only(database):
    with database() as session:
        worker = register(session, "w", NOW)
        ask(session, workers.request_shutdown, NOW, by="ann")
        assert beat(session, NOW, S.RUNNING).state == S.SHUTDOWN_REQUEST
        assert beat(session, NOW, S.OFFLINE).state == S.OFFLINE
        with pytest.raises(WorkerGone):
            ask(session, workers.request_shutdown, NOW, by="ann")
        assert worker.state == S.OFFLINE


def test_queues_change_only_while_connected_and_within_the_token(database):
    with database() as session:
        token, _ = tokens.create(
            session, worker="w", queues=["a", "b"], team=None, lifetime=timedelta(days=1), now=NOW, by=None
        )
        session.flush()
        worker = register(session, "w", NOW, token_id=token.id, queues=["a"])
        assert ask(session, workers.change_queues, ["b"], ["a"]) == ["b"]
        with pytest.raises(QueueNotAllowed, match="a, b"):
            ask(session, workers.change_queues, ["c"], [])
        assert ask(session, workers.change_queues, [], ["b"]) == []
        worker.state = S.OFFLINE
        session.flush()
        with pytest.raises(WorkerGone):
            ask(session, workers.change_queues, ["a"], [])
    with database() as session:
        assert workers.get(session, "w").queues == []


def test_a_worker_never_has_more_queues_than_it_could_register_with(database):
    with database() as session:
        register(session, "w", NOW, queues=["a"])
        with pytest.raises(BadInput, match="would have 65 queues; 64 are allowed"):
            ask(session, workers.change_queues, [f"q{n}" for n in range(64)], [])
        assert len(ask(session, workers.change_queues, [f"q{n}" for n in range(64)], ["a"])) == 64


def test_a_worker_of_all_queues_that_gets_one_serves_only_that(database):
    with database() as session:
        register(session, "w", NOW)
        assert ask(session, workers.change_queues, [], ["a"]) is None
        assert ask(session, workers.change_queues, ["a"], []) == ["a"]


def test_concurrency_of_a_connected_worker_is_kept_beside_its_own(database):
    with database() as session:
        register(session, "w", NOW)
        ask(session, workers.set_concurrency, 9)
        worker = beat(session, NOW)
        assert (worker.slots, worker.slots_wanted) == (4, 9)


def test_heartbeats_and_requests_at_once_lose_no_request(database):
    with database() as session:
        register(session, "w", NOW)

    def work(turn: int) -> None:
        with database() as session:
            if turn == 5:
                ask(session, workers.request_maintenance, "now", NOW, by="ann")
            else:
                beat(session, NOW + turn * SECOND)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(12)))
    with database() as session:
        assert workers.get(session, "w").state == S.MAINTENANCE_REQUEST
