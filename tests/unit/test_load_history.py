"""A worker's load over the last hour, as heartbeats make it."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import accumulate

import pytest

from edge_otel.load_history import KEPT, SPACING, extended

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
AT = int(START.timestamp())


def after(seconds, cpu=None, memory=None, history=None, interval=10.0):
    """Return the history once a heartbeat has come, so long after the start."""
    facts = {"cpu_percent": cpu, "memory_percent": memory, "load1": 3.0}
    given = {name: value for name, value in facts.items() if value is not None}
    return extended(history or {}, given, START + timedelta(seconds=seconds), interval)


def many(beats, interval=10.0, history=None):
    """Return the history after heartbeats at these seconds, of which number i reports i percent of CPU."""
    for number, second in enumerate(beats):
        history = after(second, cpu=number % 100, history=history, interval=interval)
    return history


def test_the_first_sample_is_there_at_once_in_whole_percent():
    assert after(0.9, 12.4, 99.6) == {"at": AT, "cpu": [12], "memory": [100]}


def test_a_worker_that_never_tells_has_no_history():
    assert after(0) == {}
    assert after(600) == {}


@pytest.mark.parametrize("value", ["40", -0.1, 100.1, 1e300, float("nan"), float("inf"), [1], 2**70])
def test_what_is_no_percentage_is_unknown(value):
    assert after(60, value, 5, after(0, 1, 2)) == {"at": AT + 60, "cpu": [1, None], "memory": [2, 5]}


def test_samples_are_a_minute_apart_however_often_heartbeats_come():
    found = many(range(0, 601, 7))
    assert found["at"] == AT + 540
    assert found["cpu"] == [0, 9, 18, 26, 35, 43, 52, 60, 69, 78]
    assert found["memory"] == [None] * 10


def test_heartbeats_each_minute_or_so_leave_no_holes_and_do_not_drift():
    draw = random.Random(5)
    beats = list(accumulate(draw.uniform(0.9, 1.1) * SPACING for _ in range(1000)))
    found = many(beats, interval=SPACING)
    assert None not in found["cpu"]
    assert 0 <= AT + beats[-1] - found["at"] < SPACING


def test_a_heartbeat_speaks_of_the_minutes_since_the_one_before():
    assert many([0, 150, 300], interval=150)["cpu"] == [0, 1, 1, 2, 2, 2]


def test_silence_is_unknown():
    found = after(10 * SPACING + 5, 7, 8, after(0, 1, 2))
    assert found == {"at": AT + 600, "cpu": [1, *[None] * 9, 7], "memory": [2, *[None] * 9, 8]}


def test_no_more_than_the_last_hour_is_kept():
    found = many(range(0, 100 * SPACING, SPACING))
    assert found == {"at": AT + 99 * SPACING, "cpu": list(range(40, 100)), "memory": [None] * KEPT}


def test_nothing_is_left_of_an_hour_that_is_over():
    assert after(KEPT * SPACING, 7, 8, after(0, 1, 2)) == {"at": AT + 3600, "cpu": [7], "memory": [8]}


def test_a_clock_that_was_ahead_does_not_stop_the_history():
    ahead = after(86_400, 1, 2)
    assert after(0, 3, 4, ahead) == {"at": AT, "cpu": [3], "memory": [4]}
    # Servers whose clocks differ a little.
    assert after(-5, 3, 4, after(0, 1, 2)) == after(0, 1, 2)


def test_what_was_given_is_not_changed():
    history = after(0, 1, 2)
    after(60, 3, 4, history)
    assert history == {"at": AT, "cpu": [1], "memory": [2]}
