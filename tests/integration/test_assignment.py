"""Claims for all workers of a server at once, on real rows."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from rows import NOW, claim, queue_job, register, state_of
from sqlalchemy import select

from edge_otel.api.assign import RESERVE_AFTER, Seat
from edge_otel.models import assignment, jobs, tokens, upkeep, wishes, workers
from edge_otel.models.tables import Job, Worker
from edge_otel.state import JobState, Verdict, WorkerState

SECOND = timedelta(seconds=1)


def connect(session, name, *, free=4, capacity=None, queues=None, team=None, **fields):
    """Register a connected worker, and return the place that its server sees in it."""
    served = None if queues is None else sorted(queues)
    worker = register(session, name, NOW, queues=served, team=team, connection=f"c-{name}", **fields)
    worker.state = WorkerState.IDLE
    session.flush()
    return Seat(name, f"c-{name}", team, None if queues is None else frozenset(queues), capacity or free, free)


def claim_batch(session, *seats, now=NOW, **fields):
    return assignment.claim_batch(session, seats, now=now, offer_timeout=30 * SECOND, **fields)


def given_to(batch):
    return {job.id: worker for worker, job in batch.claimed}


def test_a_claimed_job_has_all_that_an_offer_needs_and_its_row_says_whose_it_is(database):
    with database() as session:
        seat = connect(session, "w")
        job_id = queue_job(session, NOW, slots=2, queue="gpu", carrier={"traceparent": "00-1"}, map_index=3)
    with database() as session:
        batch = claim_batch(session, seat, now=NOW + SECOND)
    ((worker, job),) = batch.claimed
    with database() as session:
        row = session.get(Job, job_id)
        assert worker == row.worker == "w"
        assert {name: getattr(row, name) for name in job._fields} == job._asdict()
        assert (job.id, job.claim, job.slots, job.queue, job.map_index) == (job_id, 1, 2, "gpu", 3)
        assert (row.state, row.assigned_at, row.changed_at) == (JobState.ASSIGNED, NOW + SECOND, NOW + SECOND)
        assert row.offer_expires_at == NOW + 31 * SECOND
        assert jobs.record_report(row, JobState.RUNNING, job.claim, NOW) is Verdict.STORED


def test_callbacks_go_first_then_priority_then_time_and_all_kinds_go(database):
    with database() as session:
        seat = connect(session, "w", free=5)
        late = queue_job(session, NOW + 2 * SECOND, priority=5)
        early = queue_job(session, NOW, priority=5)
        low = queue_job(session, NOW - SECOND, priority=1)
        callback = queue_job(session, NOW + 3 * SECOND, kind="callback", urgency=0)
        check = queue_job(session, NOW + 4 * SECOND, kind="connection_test", urgency=0)
        assert [job.id for _, job in claim_batch(session, seat).claimed] == [callback, check, early, late, low]


def test_jobs_go_only_to_workers_of_their_queue_and_team_with_room(database):
    with database() as session:
        seats = [
            connect(session, "gpu", queues={"gpu"}),
            connect(session, "red", team="red"),
            connect(session, "small", free=1, queues={"default"}),
            connect(session, "any", free=3),
        ]
        wanted = {
            queue_job(session, NOW, queue="gpu", slots=4): "gpu",
            queue_job(session, NOW, team="red", slots=4): "red",
            queue_job(session, NOW, queue="other", slots=3): "any",
            queue_job(session, NOW + SECOND): "small",
        }
        waits = [
            queue_job(session, NOW, queue="gpu", team="red", slots=5),
            queue_job(session, NOW, team="blue"),
            queue_job(session, NOW + SECOND, queue="gpu"),
        ]
        batch = claim_batch(session, *seats)
        assert given_to(batch) == wanted
        assert not batch.more
        assert {state_of(session, job_id) for job_id in waits} == {JobState.QUEUED}


def test_a_queue_of_the_same_letters_in_another_case_is_another_queue(database):
    with database() as session:
        seat = connect(session, "w", queues={"GPU"})
        queue_job(session, NOW, queue="gpu")
        assert claim_batch(session, seat).claimed == []


def test_a_team_of_the_same_letters_in_another_case_is_another_team(database):
    with database() as session:
        seat = connect(session, "w", team="red")
        for _ in range(60):
            queue_job(session, NOW, team="Red")
        mine = queue_job(session, NOW + SECOND, team="red")
        assert given_to(claim_batch(session, seat)) == {mine: "w"}


def test_many_jobs_that_fit_nowhere_hold_no_other_up(database):
    with database() as session:
        seats = [connect(session, "a", free=1, capacity=8, queues={"a"}), connect(session, "b", queues={"b"})]
        for slots in (2, 3):
            for _ in range(60):
                queue_job(session, NOW, queue="a", slots=slots, priority=9)
        for _ in range(60):
            queue_job(session, NOW, queue="nobody", priority=9)
        behind = queue_job(session, NOW, queue="b")
        small = queue_job(session, NOW, queue="a")
        assert given_to(claim_batch(session, *seats)) == {behind: "b", small: "a"}


def test_a_big_job_that_waited_long_keeps_its_worker_free_of_small_ones_behind_it(database):
    with database() as session:
        seat = connect(session, "w", free=3, capacity=4)
        big = queue_job(session, NOW, slots=4)
        for _ in range(60):
            queue_job(session, NOW + SECOND, slots=4)
        small = [queue_job(session, NOW + 2 * SECOND) for _ in range(3)]
        later = NOW + RESERVE_AFTER + SECOND / 2
        assert claim_batch(session, seat, now=later).claimed == []
        room = Seat("w", "c-w", None, None, 4, 4)
        assert given_to(claim_batch(session, room, now=later)) == {big: "w"}
        # The others have not waited long enough.
        assert given_to(claim_batch(session, seat, now=later)) == dict.fromkeys(small, "w")


def test_the_limit_ends_a_batch_and_says_that_there_may_be_more(database):
    with database() as session:
        seats = [connect(session, f"w{n}", free=8) for n in range(10)]
        ids = [queue_job(session, NOW + n * SECOND) for n in range(70)]
        first = claim_batch(session, *seats, limit=60)
        rest = claim_batch(session, *seats, limit=60)
    assert [job.id for batch in (first, rest) for _, job in batch.claimed] == ids
    assert (first.more, rest.more) == (True, False)
    assert max(Counter(worker for worker, _ in first.claimed).values()) == 6


def test_a_batch_that_fills_every_worker_has_no_more(database):
    with database() as session:
        seats = [connect(session, f"w{n}", free=2) for n in range(3)]
        for _ in range(100):
            queue_job(session, NOW)
        batch = claim_batch(session, *seats, limit=6)
    assert (len(batch.claimed), batch.more) == (6, False)


def test_what_is_too_much_for_the_workers_looked_at_is_for_the_next_claim(database):
    with database() as session:
        seats = [connect(session, f"w{n}", free=1) for n in range(150)]
        for _ in range(120):
            queue_job(session, NOW)
        first = claim_batch(session, *seats)
        busy = {worker for worker, _ in first.claimed}
        rest = claim_batch(session, *(seat for seat in seats if seat.worker not in busy))
    assert (len(first.claimed), first.more) == (100, True)
    assert (len(rest.claimed), rest.more) == (20, False)


def test_one_job_for_a_large_fleet_is_one_claim(database):
    with database() as session:
        seats = [connect(session, f"w{n}") for n in range(150)]
        queue_job(session, NOW)
        batch = claim_batch(session, *seats)
    assert (len(batch.claimed), batch.more) == (1, False)


def _maintenance(session):
    wishes.request_maintenance(session, "w", "disk", NOW, by="me")


def _shutdown(session):
    wishes.request_shutdown(session, "w", NOW, by="me")


def _queue_removed(session):
    wishes.change_queues(session, "w", [], ["default"], NOW, by="ann")


def _connected_elsewhere(session):
    register(session, "w", NOW, token_id=session.get(Worker, "w").token_id, connection="another")


def _polls(session):
    register(session, "w", NOW, token_id=session.get(Worker, "w").token_id, session="s2")


def _expired(session):
    workers.expire_silent(session, 30.0, NOW + timedelta(days=1))


def _removed(session):
    session.delete(session.get(Worker, "w"))


def _token_revoked(session):
    tokens.revoke(session, session.get(Worker, "w").token_id, NOW)


CHANGES = [
    _maintenance,
    _shutdown,
    _queue_removed,
    _connected_elsewhere,
    _polls,
    _expired,
    _removed,
    _token_revoked,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_worker_that_its_server_does_not_know_to_be_changed_gets_no_job(database, change):
    with database() as session:
        token, _ = tokens.create(
            session, worker="*", queues=None, team=None, lifetime=timedelta(days=1), now=NOW, by=None
        )
        seat = connect(session, "w", free=8, queues={"default", "gpu"}, token_id=token.id)
        ids = [queue_job(session, NOW + n * SECOND) for n in range(3)]
    with database() as session:
        change(session)
    with database() as session:
        other = connect(session, "other", free=1)
        assert given_to(claim_batch(session, seat, other)) == {ids[0]: "other"}
        assert {state_of(session, job_id) for job_id in ids[1:]} == {JobState.QUEUED}


def test_a_token_that_has_expired_gets_no_job(database):
    with database() as session:
        token, _ = tokens.create(session, worker="w", queues=None, team=None, lifetime=SECOND, now=NOW, by=None)
        seat = connect(session, "w", token_id=token.id)
        queue_job(session, NOW)
        assert claim_batch(session, seat, now=NOW + SECOND).claimed == []
        assert len(claim_batch(session, seat, now=NOW).claimed) == 1


def test_a_queue_that_an_administrator_took_away_counts_while_the_others_go_on(database):
    with database() as session:
        seat = connect(session, "w", queues={"default", "gpu"})
        gone, stays = queue_job(session, NOW, queue="gpu"), queue_job(session, NOW)
        wishes.change_queues(session, "w", [], ["gpu"], NOW, by="ann")
        session.flush()
        assert given_to(claim_batch(session, seat)) == {stays: "w"}
        assert state_of(session, gone) is JobState.QUEUED


def test_no_more_jobs_are_given_than_the_administrators_concurrency_allows(database):
    with database() as session:
        seat = connect(session, "w", free=5, capacity=8)
        for _ in range(8):
            queue_job(session, NOW)
        wishes.set_concurrency(session, "w", 5, NOW, by="ann")
        session.flush()
        assert len(claim_batch(session, seat).claimed) == 2


def test_servers_that_claim_at_once_never_claim_the_same_job_and_leave_none(database):
    with database() as session:
        seats = [[connect(session, f"w{server}-{n}", free=10) for n in range(10)] for server in range(4)]
        ids = {queue_job(session, NOW, urgency=n % 2, priority=n % 7) for n in range(150)}
    start = Barrier(4)

    def serve(mine):
        start.wait(20)
        with database() as session:
            return [job.id for _, job in claim_batch(session, *mine).claimed]

    with ThreadPoolExecutor(4) as pool:
        got = [job_id for part in pool.map(serve, seats) for job_id in part]
    assert len(got) == len(set(got))
    assert set(got) == ids
    with database() as session:
        assert set(session.scalars(select(Job.claim))) == {1}


@pytest.mark.parametrize("database_url", ["postgresql", "mysql"], indirect=True)
def test_what_another_server_is_claiming_is_passed_over_and_nothing_else(database):
    with database() as session:
        full, idle = connect(session, "full", free=1), connect(session, "idle", free=2)
        first, second, third = (queue_job(session, NOW + n * SECOND) for n in range(3))
    with database() as one, database() as other:
        assert given_to(claim_batch(one, full)) == {first: "full"}
        # Nothing is committed yet.
        assert given_to(claim_batch(other, idle)) == {second: "idle", third: "idle"}


@pytest.mark.parametrize("database_url", ["postgresql", "mysql"], indirect=True)
def test_a_job_that_another_server_lets_go_again_is_there_for_the_next_claim(database):
    with database() as session:
        a, b = connect(session, "a"), connect(session, "b")
        job_id = queue_job(session, NOW)
    with database() as one:
        assert given_to(claim_batch(one, a)) == {job_id: "a"}
        with database() as other:
            assert claim_batch(other, b).claimed == []
        one.rollback()
    with database() as session:
        assert given_to(claim_batch(session, b)) == {job_id: "b"}


def test_polling_workers_and_servers_share_the_queue(database):
    with database() as session:
        polling = register(session, "polling", NOW)
        seat = connect(session, "connected")
        ids = [queue_job(session, NOW + n * SECOND) for n in range(4)]
        polled = claim(session, polling, NOW)
        assert given_to(claim_batch(session, Seat("connected", "c-connected", None, None, 4, 2))) == {
            ids[1]: "connected",
            ids[2]: "connected",
        }
        assert [polled.id, claim(session, polling, NOW).id] == [ids[0], ids[3]]
        assert claim_batch(session, seat).claimed == []


def test_an_offer_that_nobody_accepted_goes_to_another_under_a_higher_claim(database):
    with database() as session:
        a, b = connect(session, "a"), connect(session, "b")
        job_id = queue_job(session, NOW)
        assert given_to(claim_batch(session, a)) == {job_id: "a"}
        later = NOW + 31 * SECOND
        assert upkeep.return_expired_offers(session, None, later) == 1
        ((worker, job),) = claim_batch(session, b, now=later).claimed
        assert (worker, job.claim) == ("b", 2)


def test_hundreds_of_queues_and_workers_are_one_batch(database):
    with database() as session:
        seats = [connect(session, f"w{n}", free=1, queues={f"q{n}", f"q{n + 1}"}) for n in range(300)]
        for n in range(300):
            queue_job(session, NOW, queue=f"q{n}")
    with database() as session:
        batch = claim_batch(session, *seats)
        assert all(job.queue in (f"q{worker[1:]}", f"q{int(worker[1:]) + 1}") for worker, job in batch.claimed)
        assert len(batch.claimed) > 200
