"""The fault suite's judgement of its runs: whatever is lost or doubled is seen."""

from __future__ import annotations

import pytest

from tests.faults.judgement import Outcome, judge_log, judge_tasks


def entry(event, index=0, number=1):
    return {"task": "chore", "index": index, "try": number, "event": event}


def whole(index, number=1):
    return [entry("start", index, number), entry("effect", index, number)]


def judged(entries, killed=False):
    outcome = Outcome("daemon", "1")
    judge_tasks(entries, 2, killed, outcome)
    return outcome


def test_tasks_that_have_their_effect_once_are_right():
    found = judged([*whole(0), *whole(1)])
    assert found.right
    assert found.jobs == 2


def test_a_task_without_effect_is_lost():
    assert judged([*whole(0), entry("start", 1)]).lost == 1
    assert judged([]).lost == 2


def test_a_try_that_began_twice_is_doubled():
    assert judged([entry("start"), *whole(0), *whole(1)]).doubled == 1


def test_a_try_beside_another_is_doubled():
    assert judged([*whole(0), *whole(1), entry("overlap", 1, 2)], killed=True).doubled == 1


@pytest.mark.parametrize(("killed", "doubled", "repeated"), [(False, 1, 0), (True, 0, 1)])
def test_an_effect_that_came_again_is_doubled_unless_its_task_was_killed(killed, doubled, repeated):
    found = judged([*whole(0), *whole(0, number=2), *whole(1)], killed)
    assert (found.doubled, found.repeated, found.jobs) == (doubled, repeated, 3)


def test_a_worker_that_needed_a_hand_is_not_right():
    outcome = Outcome("daemon", "1", by_hand=1)
    judge_tasks([*whole(0), *whole(1)], 2, False, outcome)
    assert not outcome.right


@pytest.mark.parametrize(
    ("written", "stored", "found"),
    [
        (b"abc", b"abc", (0, 0)),
        (b"abc", b"ab", (1, 0)),
        (b"abc", b"", (3, 0)),
        (b"abc", b"axc", (2, 0)),
        (b"abc", b"abcbc", (0, 2)),
        (b"", b"", (0, 0)),
    ],
)
def test_logs_are_compared_byte_by_byte(written, stored, found):
    assert judge_log(written, stored) == found
