"""The worker's wheel: every pair of states, and every fact a worker can report."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest

from edge_otel.state import (
    GONE,
    IN_MAINTENANCE,
    TAKES_JOBS,
    Facts,
    WorkerState,
    expire,
    obey,
    observe,
    settle,
)

S = WorkerState
FACTS = [Facts(*values) for values in product((0, 1, 3), (False, True), (False, True))]
PAIRS = list(product(WorkerState, WorkerState))
SITUATIONS = list(product(WorkerState, FACTS))
REQUESTS = (S.MAINTENANCE_REQUEST, S.MAINTENANCE_EXIT, S.SHUTDOWN_REQUEST)

# What redefine_state of apache-airflow-providers-edge3 5.1.0 returned for each pair; tests/integration/edge3_merge.py
# prints it, and tests/integration/test_edge3_merge.py compares it with an installed edge3.
EDGE3 = json.loads((Path(__file__).parent / "edge3_merge.json").read_text())["stored"]


def turn(facts: Facts, stored: WorkerState) -> tuple[Facts, WorkerState]:
    """Return worker and server after one heartbeat."""
    stored = settle(stored, observe(facts))
    return obey(facts, stored), stored


def fixed_point(facts: Facts, stored: WorkerState) -> tuple[Facts, WorkerState]:
    """Return where heartbeats lead while the jobs stay the same."""
    for _ in range(4):
        after = turn(facts, stored)
        if after == (facts, stored):
            return after
        facts, stored = after
    pytest.fail(f"{facts} and {stored!r} still change after 4 heartbeats")


def test_the_table_of_edge3_has_every_pair():
    assert {(a, b) for a in EDGE3 for b in EDGE3[a]} == {(a.value, b.value) for a, b in PAIRS}


@pytest.mark.parametrize(("stored", "reported"), PAIRS)
def test_settle_merges_as_edge3_does(stored, reported):
    assert settle(stored, reported) == EDGE3[stored.value][reported.value]


@pytest.mark.parametrize(("stored", "facts"), SITUATIONS)
def test_the_wheel_comes_to_rest_from_every_state(stored, facts):
    after, settled = fixed_point(facts, stored)
    assert settled in (observe(after), S.SHUTDOWN_REQUEST, S.MAINTENANCE_REQUEST)
    if settled is S.SHUTDOWN_REQUEST:
        assert after.draining, "only a worker that still has jobs to finish rests in a request"
        assert after.jobs
    if settled is S.MAINTENANCE_REQUEST:
        assert after.maintenance, "only a worker that is about to leave rests in a request"
        assert after.draining


@pytest.mark.parametrize("facts", FACTS)
def test_a_shutdown_request_is_kept_until_the_worker_is_gone(facts):
    after, stored = turn(facts, S.SHUTDOWN_REQUEST)
    assert after.draining or stored in GONE
    after, stored = fixed_point(after, stored)
    assert (stored in GONE) == (after.jobs == 0)


@pytest.mark.parametrize("facts", FACTS)
def test_a_maintenance_request_is_kept_until_the_worker_is_in_maintenance(facts):
    after, stored = turn(facts, S.MAINTENANCE_REQUEST)
    assert after.maintenance
    assert stored in IN_MAINTENANCE
    after, stored = fixed_point(after, stored)
    assert stored in IN_MAINTENANCE or (after.draining and after.maintenance)


@pytest.mark.parametrize("facts", [f for f in FACTS if not f.draining])
def test_an_end_of_maintenance_brings_the_worker_back_to_work(facts):
    after, stored = turn(facts, S.MAINTENANCE_EXIT)
    assert not after.maintenance
    assert stored in TAKES_JOBS


@pytest.mark.parametrize(("stored", "reported"), [pair for pair in PAIRS if pair[0] in REQUESTS])
def test_a_request_is_answered_only_by_what_obeys_it(stored, reported):
    obeyed = {
        S.MAINTENANCE_REQUEST: {S.MAINTENANCE_PENDING, S.MAINTENANCE_MODE},
        S.SHUTDOWN_REQUEST: GONE,
        # The worker may be in maintenance no more before it hears of the exit: any report answers it.
        S.MAINTENANCE_EXIT: set(WorkerState),
    }[stored]
    assert settle(stored, reported) is stored or reported in obeyed


@pytest.mark.parametrize(
    ("stored", "facts"), [(s, f) for s, f in SITUATIONS if f.maintenance and s is not S.MAINTENANCE_EXIT]
)
def test_a_worker_that_says_it_is_in_maintenance_gets_no_jobs(stored, facts):
    assert settle(stored, observe(facts)) not in TAKES_JOBS


@pytest.mark.parametrize(("stored", "facts"), [(s, f) for s, f in SITUATIONS if f.draining])
def test_a_draining_worker_gets_no_jobs(stored, facts):
    assert settle(stored, observe(facts)) not in TAKES_JOBS


def test_who_is_gone_in_maintenance_or_asked_to_be_takes_no_jobs():
    assert TAKES_JOBS.isdisjoint(GONE | IN_MAINTENANCE | set(REQUESTS) | {S.TERMINATING})


@pytest.mark.parametrize("stored", sorted(IN_MAINTENANCE))
def test_a_worker_lost_in_maintenance_returns_in_maintenance(stored):
    lost = expire(stored)
    assert lost is S.OFFLINE_MAINTENANCE
    after, stored = turn(Facts(), settle(lost, S.STARTING))
    assert after.maintenance
    assert fixed_point(after, stored)[1] is S.MAINTENANCE_MODE


@pytest.mark.parametrize("stored", sorted(set(WorkerState) - IN_MAINTENANCE))
def test_a_worker_lost_elsewhere_returns_to_work(stored):
    assert expire(stored) in GONE - {S.OFFLINE_MAINTENANCE}
    after, back = turn(Facts(), settle(expire(stored), S.STARTING))
    assert (after, back) == (Facts(), S.IDLE)


@pytest.mark.parametrize("stored", WorkerState)
def test_silence_ends_in_a_state_that_is_gone_and_stays_there(stored):
    lost = expire(stored)
    assert lost in GONE
    assert expire(lost) is lost


@pytest.mark.parametrize("stored", WorkerState)
def test_every_state_has_a_way_out(stored):
    seen = {stored}
    while True:
        more = {settle(s, observe(facts)) for s in seen for facts in FACTS} | {expire(s) for s in seen}
        more |= {settle(s, S.STARTING) for s in seen}
        if more <= seen:
            break
        seen |= more
    assert {S.IDLE, S.RUNNING, S.OFFLINE, S.MAINTENANCE_MODE} <= seen


def test_states_print_as_their_values():
    assert f"{S.OFFLINE_MAINTENANCE}" == "offline maintenance"
