"""Which worker gets which job."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from edge_otel.api.assign import RESERVE_AFTER, Plan, Seat, Waiting, match, shortlist

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OLD = NOW - RESERVE_AFTER - timedelta(seconds=1)


def job(name, slots=1, *, queue="q", team=None, queued_at=NOW):
    return Waiting(name, team, queue, slots, queued_at)


def seat(name, free=4, capacity=None, *, queues=None, team=None):
    return Seat(name, f"connection of {name}", team, queues, capacity or free, free)


def given_to(plan: Plan) -> dict[str, str]:
    return {placed.id: worker for placed, worker in plan.placements}


queues = st.sampled_from("abc")
teams = st.sampled_from([None, "red"])
waiting = st.lists(
    st.builds(
        Waiting,
        id=st.uuids().map(str),
        team=teams,
        queue=queues,
        slots=st.integers(1, 9),
        queued_at=st.sampled_from([NOW, OLD]),
    ),
    max_size=30,
    unique_by=lambda j: j.id,
)
workers = st.lists(
    st.builds(
        lambda name, team, served, capacity, share: Seat(name, name, team, served, capacity, round(capacity * share)),
        st.text("abcdef", min_size=1, max_size=3),
        teams,
        st.none() | st.frozensets(queues),
        st.integers(1, 8),
        st.floats(0, 1),
    ),
    max_size=12,
    unique_by=lambda s: s.worker,
)


def serves(worker: Seat, wanted: Waiting) -> bool:
    return worker.team == wanted.team and (worker.queues is None or wanted.queue in worker.queues)


def left(plan: Plan, seats: list[Seat]) -> dict[str, int]:
    free = {s.worker: s.free for s in seats}
    for placed, worker in plan.placements:
        free[worker] -= placed.slots
    return free


@given(waiting, workers)
def test_no_worker_gets_more_than_fits_nor_what_is_not_for_it(jobs, seats):
    plan = match(jobs, seats, NOW)
    by_name = {s.worker: s for s in seats}
    assert all(serves(by_name[worker], placed) for placed, worker in plan.placements)
    assert all(free >= 0 for free in left(plan, seats).values())
    assert len({placed.id for placed, _ in plan.placements}) == len(plan.placements)


@given(waiting, workers)
def test_what_waits_fits_nowhere_but_on_a_reserved_worker(jobs, seats):
    plan = match(jobs, seats, NOW)
    free, placed = left(plan, seats), given_to(plan)
    for unplaced in (j for j in jobs if j.id not in placed):
        assert unplaced.kind in plan.blocked
        assert not any(
            serves(s, unplaced) and free[s.worker] >= unplaced.slots for s in seats if s.worker not in plan.reserved
        )


@given(waiting, workers)
def test_of_jobs_of_one_kind_those_in_front_go_first(jobs, seats):
    placed = given_to(match(jobs, seats, NOW))
    by_kind = defaultdict(list)
    for waits in jobs:
        by_kind[waits.kind].append(waits.id in placed)
    assert all(there == sorted(there, reverse=True) for there in by_kind.values())


@given(waiting, workers, st.randoms())
def test_the_same_input_in_any_order_of_workers_gives_the_same_plan(jobs, seats, random):
    shuffled = random.sample(seats, len(seats))
    assert match(jobs, seats, NOW) == match(jobs, shuffled, NOW)


@given(waiting, workers)
def test_only_a_worker_that_could_hold_an_old_job_is_reserved_and_one_per_kind(jobs, seats):
    plan = match(jobs, seats, NOW)
    big = {j.kind for j in jobs if j.queued_at == OLD and j.kind in plan.blocked}
    assert len(plan.reserved) <= len(big)
    for worker in (s for s in seats if s.worker in plan.reserved):
        assert any(worker.capacity >= slots and serves(worker, job("", slots, queue=q, team=t)) for t, q, slots in big)


def test_the_least_loaded_worker_is_the_one_with_the_largest_free_share():
    half, most, full = seat("half", 8, 16), seat("most", 3, 4), seat("full", 1, 8)
    assert given_to(match([job("a")], [half, most, full], NOW)) == {"a": "most"}


def test_a_job_that_the_least_loaded_worker_has_no_room_for_goes_to_the_next():
    assert given_to(match([job("a", 4)], [seat("idle", 2), seat("busy", 8, 16)], NOW)) == {"a": "busy"}


def test_jobs_that_come_together_are_spread_evenly():
    plan = match([job(f"j{n}") for n in range(20)], [seat(f"w{n}", 8) for n in range(5)], NOW)
    assert Counter(given_to(plan).values()) == {f"w{n}": 4 for n in range(5)}


def test_jobs_that_come_one_by_one_are_spread_evenly_over_time():
    seats = [seat(f"w{n}", 8) for n in range(5)]
    got = Counter(
        given_to(match([job("j")], seats, NOW + timedelta(milliseconds=37 * turn)))["j"] for turn in range(1000)
    )
    assert all(150 < got[s.worker] < 250 for s in seats), got


def test_the_shortlist_has_those_with_most_room_of_each_kind():
    red, gpu = seat("red", 1, team="red"), seat("gpu", 1, queues=frozenset({"gpu"}))
    others = [seat(f"w{n}", n) for n in range(6)]
    listed = shortlist([*others, red, gpu, replace(red, worker="full", free=0)], 2, NOW)
    assert {s.worker for s in listed} == {"w4", "w5", "red", "gpu"}


def test_of_many_equal_workers_each_is_on_the_shortlist_now_and_then():
    seats = [seat(f"w{n}") for n in range(50)]
    got = Counter(s.worker for turn in range(500) for s in shortlist(seats, 5, NOW + timedelta(milliseconds=37 * turn)))
    assert all(25 < got[s.worker] < 80 for s in seats), got


def test_jobs_that_fit_nowhere_hold_no_other_up():
    jobs = [job(f"a{n}", queue="a") for n in range(20)] + [job("b", queue="b")]
    plan = match(jobs, [seat("w", queues=frozenset({"b"}))], NOW)
    assert given_to(plan) == {"b": "w"}
    assert plan.blocked == {(None, "a", 1)}


def test_a_big_job_that_is_new_keeps_no_worker_from_small_ones():
    plan = match([job("big", 4), job("small")], [seat("w", 2, 4)], NOW)
    assert (given_to(plan), plan.reserved) == ({"small": "w"}, set())


def test_a_big_job_that_waited_reserves_the_worker_that_is_nearest_to_having_room():
    jobs = [job("first"), job("big", 4, queued_at=OLD), *(job(f"small{n}") for n in range(9))]
    plan = match(jobs, [seat("w0", 2, 4), seat("w1", 3, 4), seat("w2", 3, 3)], NOW)
    assert plan.reserved == {"w1"}
    got = given_to(plan)
    assert got["first"] == "w2"
    assert Counter(got.values()) == {"w0": 2, "w2": 3}


def test_a_job_behind_a_new_one_of_its_kind_reserves_when_it_is_old_itself():
    plan = match([job("new", 4), job("old", 4, queued_at=OLD)], [seat("w", 2, 4)], NOW)
    assert plan.reserved == {"w"}


def test_a_job_that_is_too_big_for_every_worker_reserves_none():
    plan = match([job("huge", 9, queued_at=OLD), job("small")], [seat("w", 2, 8)], NOW)
    assert (given_to(plan), plan.reserved) == ({"small": "w"}, set())


@given(st.integers(2, 6), st.integers(2, 8), st.randoms())
def test_a_big_job_is_placed_under_a_constant_stream_of_small_ones(size, slots, random):
    """Small jobs come faster than they end; each round some end, and there is a plan."""
    seats = {f"w{n}": seat(f"w{n}", slots) for n in range(size)}
    running: list[tuple[str, int]] = []
    now = NOW
    for turn in range(10_000):
        now += timedelta(seconds=1)
        jobs = [job("big", slots, queued_at=NOW)] if turn else []
        jobs += [job(f"s{turn}-{n}", queued_at=now) for n in range(slots * size)]
        plan = match(jobs, [s for s in seats.values() if s.free], now)
        if "big" in given_to(plan):
            return
        for placed, worker in plan.placements:
            seats[worker] = replace(seats[worker], free=seats[worker].free - placed.slots)
            running.append((worker, turn + random.randint(1, 5)))
        for worker, _ in (ended := [r for r in running if r[1] <= turn]):
            seats[worker] = replace(seats[worker], free=seats[worker].free + 1)
        running = [r for r in running if r not in ended]
        assert turn < 11 + 5 * slots + 5, "never placed"
