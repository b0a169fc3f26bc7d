"""What administrators ask of workers, and workers of themselves: maintenance, shutdown, queues, slots."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from rows import NOW, ask, beat, history, register, register_as, report

from edge_otel.errors import BadInput, QueueNotAllowed, WorkerGone
from edge_otel.models import tokens, wishes, workers
from edge_otel.state import WorkerState

S = WorkerState
SECOND = timedelta(seconds=1)
SILENCE = timedelta(seconds=150)


def test_a_maintenance_request_stands_until_the_worker_obeys_and_keeps_its_comment(database):
    with database() as session:
        register(session, "w", NOW)
        ask(session, wishes.request_maintenance, "disk swap", NOW, by="ann")
        worker = beat(session, NOW + SECOND, S.RUNNING, jobs_active=1)
        assert (worker.state, worker.maintenance_comment) == (S.MAINTENANCE_REQUEST, "disk swap")
        worker = beat(session, NOW + SECOND, S.MAINTENANCE_PENDING, jobs_active=1)
        worker = beat(session, NOW + SECOND, S.MAINTENANCE_MODE)
        assert (worker.state, worker.maintenance_comment, worker.maintenance_origin) == (
            S.MAINTENANCE_MODE,
            "disk swap",
            "admin",
        )
        ask(session, wishes.end_maintenance, NOW + 2 * SECOND, by="bob")
        assert worker.state == S.MAINTENANCE_EXIT
        worker = beat(session, NOW + 3 * SECOND, S.MAINTENANCE_MODE)
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
        ask(session, wishes.request_maintenance, None, NOW, by="ann")
        worker = beat(session, NOW, S.MAINTENANCE_MODE, **own)
        assert (worker.state, worker.maintenance_origin) == (S.MAINTENANCE_REQUEST, "admin")
        worker = beat(session, NOW, S.IDLE)  # it has not heard, and is well again
        assert (worker.state, worker.maintenance_origin) == (S.MAINTENANCE_REQUEST, "admin")
        worker = beat(session, NOW, S.MAINTENANCE_MODE)
        assert (worker.state, worker.maintenance_origin) == (S.MAINTENANCE_MODE, "admin")


SAID = {
    "edge3": {"session": None},
    "admin": {},
    "local": {"maintenance_origin": "local"},
    "automatic": {"maintenance_origin": "automatic"},
}
"""What a worker says beside the comment, by whose maintenance it is; that of edge3 tells nobody's."""


def kept(worker):
    return worker.state, worker.maintenance_comment, worker.maintenance_origin


@pytest.mark.parametrize("who", ["edge3", "local", "automatic"])
@pytest.mark.parametrize("state", [S.MAINTENANCE_PENDING, S.MAINTENANCE_MODE])
@pytest.mark.parametrize("comment", ["keep off: fire", None])
def test_an_administrator_takes_over_a_maintenance_that_the_site_has_begun(database, who, state, comment):
    said = {"maintenance_comments": "lunch"} | SAID[who]
    expected = comment or "lunch"
    with database() as session:
        register(session, "w", NOW, session=said.get("session", "s1"))
        beat(session, NOW, state, **said)
        ask(session, wishes.request_maintenance, comment, NOW, by="ann")
        for _ in range(2):
            worker = beat(session, NOW, state, **said)
            # An edge3 worker obeys by what it is in already; one of ours has heard when it calls it its own no more.
            assert kept(worker) == (state if who == "edge3" else S.MAINTENANCE_REQUEST, expected, "admin")
        if who != "edge3":
            assert beat(session, NOW, S.IDLE).state == S.MAINTENANCE_REQUEST  # the site has ended what was its own
        heard = {"maintenance_comments": expected, "session": said.get("session", "s1")}
        assert kept(beat(session, NOW, state, **heard)) == (state, expected, "admin")


@pytest.mark.parametrize("origin", ["local", "automatic"])
def test_a_takeover_of_before_a_shutdown_or_of_one_that_is_gone_is_not_undone(database, origin):
    own = {"maintenance_comments": "lunch", "maintenance_origin": origin}
    with database() as session:
        register(session, "w", NOW)
        beat(session, NOW, S.MAINTENANCE_PENDING, jobs_active=1, **own)
        ask(session, wishes.request_shutdown, NOW, by="ann")
        ask(session, wishes.request_maintenance, "fire", NOW, by="ann")
        worker = beat(session, NOW, S.TERMINATING, jobs_active=1, **own)
        assert kept(worker) == (S.SHUTDOWN_REQUEST, "fire", "admin")
        for _ in range(2):
            worker = beat(session, NOW, S.OFFLINE_MAINTENANCE, **own)
            assert kept(worker) == (S.OFFLINE_MAINTENANCE, "fire", "admin")
        worker = register(session, "w", NOW + SECOND, state=S.MAINTENANCE_MODE, **own)
        assert kept(worker) == (S.MAINTENANCE_REQUEST, "fire", "admin")


def test_a_local_maintenance_that_was_on_its_way_does_not_undo_an_administrators(database):
    with database() as session:
        register(session, "w", NOW)
        ask(session, wishes.request_maintenance, "fire", NOW, by="ann")
        own = {"maintenance_comments": "lunch", "maintenance_origin": "local"}
        worker = beat(session, NOW, S.MAINTENANCE_MODE, **own)
        assert kept(worker) == (S.MAINTENANCE_REQUEST, "fire", "admin")


@pytest.mark.parametrize("who", ["admin", "local", "automatic"])
def test_a_comment_that_was_changed_is_kept_and_the_maintenance_is_whose_it_was(database, who):
    with database() as session:
        register(session, "w", NOW)

        def says(comment, state=S.MAINTENANCE_MODE):
            return kept(beat(session, NOW, state, maintenance_comments=comment, **SAID[who]))[1:]

        if who == "admin":
            ask(session, wishes.request_maintenance, "lunch", NOW, by="ann")
        assert says("lunch") == ("lunch", who)
        ask(session, wishes.change_comment, "back at two", NOW, by="ann")
        assert [says("lunch"), says("lunch")] == [("back at two", who)] * 2
        ask(session, wishes.change_comment, "back at three", NOW, by="ann")
        # It has heard of the first, or of none, when the second is there.
        assert [says("back at two"), says("lunch")] == [("back at three", who)] * 2
        assert says("back at three") == ("back at three", who)
        assert beat(session, NOW, S.IDLE).maintenance_comment is None  # the site, or its health, has ended it
        if who != "admin":
            assert says("lunch") == ("lunch", who)


@pytest.mark.parametrize("origin", ["local", "automatic"])
def test_what_the_site_says_after_an_administrators_comment_is_its_comment(database, origin):
    own = {"maintenance_origin": origin}
    with database() as session:
        register(session, "w", NOW)
        beat(session, NOW, S.MAINTENANCE_MODE, maintenance_comments="lunch", **own)
        ask(session, wishes.change_comment, "back at two", NOW, by="ann")
        for comment in ("back at three", "lunch"):
            worker = beat(session, NOW, S.MAINTENANCE_MODE, maintenance_comments=comment, **own)
            assert kept(worker)[1:] == (comment, origin)


def test_a_comment_that_was_changed_while_the_worker_was_gone_is_kept(database):
    own = {"maintenance_comments": "lunch", "maintenance_origin": "local"}
    with database() as session:
        register(session, "w", NOW)
        beat(session, NOW, S.MAINTENANCE_MODE, **own)
        beat(session, NOW, S.OFFLINE_MAINTENANCE, **own)
        for number in range(30):
            ask(session, wishes.change_comment, f"gone, {number}", NOW, by="ann")
        worker = register(session, "w", NOW, state=S.MAINTENANCE_MODE, session="s2", **own)
        assert kept(worker) == (S.MAINTENANCE_MODE, "gone, 29", "local")


def test_an_edge3_worker_has_both_comments_as_at_edge3s_own_server(database):
    """By the words of its own it knows an automatic maintenance, which it ends when it is well."""
    with database() as session:
        register(session, "w", NOW, session=None)

        def says(comment):
            return kept(beat(session, NOW, S.MAINTENANCE_MODE, maintenance_comments=comment, session=None))

        assert says("automatic") == (S.MAINTENANCE_MODE, "automatic", "local")
        ask(session, wishes.change_comment, "Bob looks at it", NOW, by="ann")
        both = "Bob looks at it\n\nautomatic"
        assert [says("automatic"), says("automatic"), says(both)] == [(S.MAINTENANCE_MODE, both, "local")] * 3
        ask(session, wishes.change_comment, "x" * 1020, NOW, by="ann")
        assert says(both) == (S.MAINTENANCE_MODE, "x" * 1020, "local")


def test_an_edge3_worker_does_not_undo_an_administrators_comment(database):
    with database() as session:
        register(session, "w", NOW, session=None)
        ask(session, wishes.request_maintenance, "new disks", NOW, by="ann")
        for comment in ("new disks", "new fans"):
            ask(session, wishes.change_comment, comment, NOW, by="ann")
            worker = beat(session, NOW, S.MAINTENANCE_MODE, maintenance_comments="new disks", session=None)
            assert kept(worker) == (S.MAINTENANCE_MODE, comment, "admin")


def test_a_person_at_the_site_who_takes_over_an_automatic_maintenance_without_a_word_is_known(database):
    with database() as session:
        register(session, "w", NOW)
        beat(session, NOW, S.MAINTENANCE_MODE, maintenance_comments="Disk at 98 %", maintenance_origin="automatic")
        worker = beat(session, NOW, S.MAINTENANCE_MODE, maintenance_comments="", maintenance_origin="local")
        assert worker.maintenance_origin == "local"


def test_maintenance_of_a_worker_that_is_gone_waits_for_it(database):
    with database() as session:
        register_as(session, S.OFFLINE)
        ask(session, wishes.request_maintenance, "later", NOW, by="ann")
        assert register(session, "w", NOW + SECOND).state == S.MAINTENANCE_REQUEST
        assert workers.get(session, "w").maintenance_comment == "later"


REMEMBERED = {S.MAINTENANCE_MODE: S.IDLE, S.MAINTENANCE_PENDING: S.RUNNING}
"""What a daemon reports that remembers an administrator's maintenance; and what is stored where that was ended."""


@pytest.mark.parametrize("returns", [register, lambda session, _, now, **said: beat(session, now, **said)])
@pytest.mark.parametrize("remembered", REMEMBERED)
@pytest.mark.parametrize("when", ["while it was gone", "before it was lost"])
def test_a_maintenance_that_was_ended_does_not_come_back_with_a_worker_that_remembers_it(
    database, returns, remembered, when
):
    with database() as session:
        register(session, "w", NOW)
        ask(session, wishes.request_maintenance, "why", NOW, by="ann")
        beat(session, NOW, remembered)
        if when == "before it was lost":
            ask(session, wishes.end_maintenance, NOW, by="ann")
        workers.expire_silent(session, 30.0, NOW + SILENCE + SECOND)
        if when == "while it was gone":
            ask(session, wishes.end_maintenance, NOW, by="ann")
    with database() as session:
        worker = returns(session, "w", NOW + 2 * SILENCE, state=remembered, maintenance_comments="why")
        assert (worker.state, worker.maintenance_comment, worker.maintenance_origin) == (
            REMEMBERED[remembered],
            None,
            None,
        )


@pytest.mark.parametrize("origin", ["local", "automatic"])
def test_a_maintenance_that_the_site_has_begun_is_not_ended_behind_its_back(database, origin):
    with database() as session:
        register(session, "w", NOW)
        own = {"maintenance_comments": "hot", "maintenance_origin": origin}
        beat(session, NOW, S.MAINTENANCE_MODE, **own)
        workers.expire_silent(session, 30.0, NOW + SILENCE + SECOND)
        with pytest.raises(WorkerGone, match=f"its maintenance is {origin}"):
            ask(session, wishes.end_maintenance, NOW, by="ann")
        worker = beat(session, NOW + 2 * SILENCE, S.MAINTENANCE_MODE, **own)
        assert (worker.state, worker.maintenance_origin) == (S.MAINTENANCE_MODE, origin)
        ask(session, wishes.end_maintenance, NOW, by="ann")
        assert worker.state == S.MAINTENANCE_EXIT


def test_a_maintenance_that_begins_at_the_site_while_the_worker_is_gone_is_heeded(database):
    with database() as session:
        register_as(session, S.UNKNOWN)
        own = {"maintenance_comments": "hot", "maintenance_origin": "local"}
        worker = beat(session, NOW + SECOND, S.MAINTENANCE_MODE, **own)
        assert (worker.state, worker.maintenance_origin) == (S.MAINTENANCE_MODE, "local")


@pytest.mark.parametrize("heard", [True, False])
@pytest.mark.parametrize("first", ["maintenance", "shutdown"])
@pytest.mark.parametrize("end", [S.OFFLINE, None])
def test_a_worker_that_is_shut_down_in_maintenance_comes_back_in_it(database, heard, first, end):
    """``heard``: the worker was in maintenance before the end. A poller hears of the later of two wishes only."""
    with database() as session:
        register(session, "w", NOW)
        wanted = {
            "maintenance": lambda: ask(session, wishes.request_maintenance, "new disks", NOW, by="ann"),
            "shutdown": lambda: ask(session, wishes.request_shutdown, NOW, by="ann"),
        }
        wanted.pop(first)()
        if heard and first == "maintenance":
            beat(session, NOW, S.MAINTENANCE_PENDING, jobs_active=1)
        [other] = wanted.values()
        other()
        said = {"maintenance_comments": "new disks"} if heard else {}
        worker = beat(session, NOW, S.TERMINATING, jobs_active=1, **said)
        assert (worker.state, worker.maintenance_comment, worker.maintenance_origin) == (
            S.SHUTDOWN_REQUEST,
            "new disks",
            "admin",
        )
        if end is None:
            workers.expire_silent(session, 30.0, NOW + SILENCE + SECOND)
        else:
            beat(session, NOW, S.OFFLINE_MAINTENANCE if heard else S.OFFLINE, **said)
        assert (worker.state, worker.maintenance_comment, worker.maintenance_origin) == (
            S.OFFLINE_MAINTENANCE,
            "new disks",
            "admin",
        )
        assert register(session, "w", NOW + SECOND).state == S.MAINTENANCE_REQUEST


def test_a_maintenance_stands_however_often_a_farewell_is_said_and_whoever_returns_without_having_heard(database):
    with database() as session:
        register(session, "w", NOW)
        ask(session, wishes.request_maintenance, "new disks", NOW, by="ann")
        ask(session, wishes.request_shutdown, NOW, by="ann")
        ask(session, wishes.request_maintenance, None, NOW, by="bob")
        for _ in range(2):
            worker = beat(session, NOW, S.OFFLINE)
            assert (worker.state, worker.maintenance_comment) == (S.OFFLINE_MAINTENANCE, "new disks")
        worker = beat(session, NOW, S.IDLE)
        assert (worker.state, worker.maintenance_comment) == (S.MAINTENANCE_REQUEST, "new disks")


def test_a_maintenance_of_the_workers_own_that_is_over_before_it_stops_does_not_come_back(database):
    with database() as session:
        register(session, "w", NOW)
        own = {"maintenance_comments": "Disk at 98 %", "maintenance_origin": "automatic"}
        beat(session, NOW, S.MAINTENANCE_PENDING, jobs_active=1, **own)
        beat(session, NOW, S.TERMINATING, jobs_active=1, **own)
        worker = beat(session, NOW, S.TERMINATING, jobs_active=1)
        workers.expire_silent(session, 30.0, NOW + SILENCE + SECOND)
        assert (worker.state, worker.maintenance_origin) == (S.UNKNOWN, None)
        assert register(session, "w", NOW + 2 * SILENCE).state == S.STARTING


@pytest.mark.parametrize("shut_down", [True, False])
def test_a_maintenance_that_was_ended_is_over_though_the_worker_stops_before_it_hears(database, shut_down):
    with database() as session:
        register(session, "w", NOW)
        ask(session, wishes.request_maintenance, "why", NOW, by="ann")
        beat(session, NOW, S.MAINTENANCE_PENDING, jobs_active=1)
        ask(session, wishes.end_maintenance, NOW, by="ann")
        if shut_down:
            ask(session, wishes.request_shutdown, NOW, by="ann")
        said = {"maintenance_comments": "why"}
        beat(session, NOW, S.TERMINATING, jobs_active=1, **said)
        worker = beat(session, NOW, S.OFFLINE_MAINTENANCE, **said)
        assert (worker.state, worker.maintenance_comment, worker.maintenance_origin) == (S.OFFLINE, None, None)
        assert register(session, "w", NOW + SECOND, state=S.MAINTENANCE_MODE, **said).state == S.IDLE


def test_a_shutdown_request_is_for_a_connected_worker_only(database):
    with database() as session:
        worker = register(session, "w", NOW)
        ask(session, wishes.request_shutdown, NOW, by="ann")
        assert beat(session, NOW, S.RUNNING).state == S.SHUTDOWN_REQUEST
        assert beat(session, NOW, S.OFFLINE).state == S.OFFLINE
        with pytest.raises(WorkerGone):
            ask(session, wishes.request_shutdown, NOW, by="ann")
        assert worker.state == S.OFFLINE


def test_queues_change_only_while_connected_and_within_the_token(database):
    with database() as session:
        token, _ = tokens.create(
            session, worker="w", queues=["a", "b"], team=None, lifetime=timedelta(days=1), now=NOW, by=None
        )
        session.flush()
        worker = register(session, "w", NOW, token_id=token.id, queues=["a"])
        assert ask(session, wishes.change_queues, ["b"], ["a"], NOW, by="ann") == ["b"]
        with pytest.raises(QueueNotAllowed, match="a, b"):
            ask(session, wishes.change_queues, ["c"], [], NOW, by="ann")
        assert ask(session, wishes.change_queues, [], ["b"], NOW, by="ann") == []
        worker.state = S.OFFLINE
        session.flush()
        with pytest.raises(WorkerGone):
            ask(session, wishes.change_queues, ["a"], [], NOW, by="ann")
    with database() as session:
        assert workers.get(session, "w").queues == []


def test_a_worker_never_has_more_queues_than_it_could_register_with(database):
    with database() as session:
        register(session, "w", NOW, queues=["a"])
        with pytest.raises(BadInput, match="would have 65 queues; 64 are allowed"):
            ask(session, wishes.change_queues, [f"q{n}" for n in range(64)], [], NOW, by="ann")
        assert len(ask(session, wishes.change_queues, [f"q{n}" for n in range(64)], ["a"], NOW, by="ann")) == 64


def test_a_worker_of_all_queues_that_gets_one_serves_only_that(database):
    with database() as session:
        register(session, "w", NOW)
        assert ask(session, wishes.change_queues, [], ["a"], NOW, by="ann") is None
        assert ask(session, wishes.change_queues, ["a"], [], NOW, by="ann") == ["a"]


def test_concurrency_of_a_connected_worker_is_kept_beside_its_own(database):
    with database() as session:
        register(session, "w", NOW)
        ask(session, wishes.set_concurrency, 9, NOW, by="ann")
        worker = beat(session, NOW)
        assert (worker.slots, worker.slots_wanted) == (4, 9)


def test_heartbeats_and_requests_at_once_lose_no_request(database):
    with database() as session:
        register(session, "w", NOW)

    def work(turn: int) -> None:
        with database() as session:
            if turn == 5:
                ask(session, wishes.request_maintenance, "now", NOW, by="ann")
            else:
                beat(session, NOW + turn * SECOND)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(12)))
    with database() as session:
        assert workers.get(session, "w").state == S.MAINTENANCE_REQUEST


def test_a_comment_is_not_taken_back_by_a_heartbeat_that_has_not_heard_of_it(database):
    with database() as session:
        register(session, "w", NOW)
        ask(session, wishes.request_maintenance, "new disks", NOW, by="ann")
        said = report(S.MAINTENANCE_MODE, maintenance_comments="new disks")
        workers.heartbeat(session, "w", said, NOW, token_id="t1", trace_id=None)
        ask(session, wishes.change_comment, "new fans", NOW, by="ann")
        worker = workers.heartbeat(session, "w", said, NOW, token_id="t1", trace_id=None)
        assert (worker.maintenance_comment, worker.maintenance_origin) == ("new fans", "admin")
        local = report(S.MAINTENANCE_MODE, maintenance_comments="at the site", maintenance_origin="local")
        worker = workers.heartbeat(session, "w", local, NOW, token_id="t1", trace_id=None)
        assert (worker.maintenance_comment, worker.maintenance_origin) == ("at the site", "local")
