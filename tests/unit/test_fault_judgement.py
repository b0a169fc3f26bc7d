"""The fault suite's judgement of its runs: whatever is lost or doubled is seen."""

from __future__ import annotations

import pytest

from tests.faults.judgement import Outcome, judge_log, judge_tasks
from tests.faults.report import summary, table


def entry(event, index=0, number=1):
    return {"task": "chore", "index": index, "try": number, "event": event}


def whole(index, number=1):
    return [entry("start", index, number), entry("effect", index, number)]


def judged(entries, killed=frozenset()):
    outcome = Outcome("daemon", "1")
    judge_tasks(entries, 2, killed, outcome)
    return outcome


def one(index=0, number=1):
    return {("chore", index, number)}


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
    assert judged([*whole(0), *whole(1), entry("overlap", 1, 2)], killed=one(1)).doubled == 1


@pytest.mark.parametrize("first", [[], [entry("start")]], ids=["not begun", "begun"])
def test_a_try_that_nobody_killed_is_lost_though_the_next_is_right(first):
    found = judged([*first, *whole(0, number=2), *whole(1)])
    assert (found.lost, found.right) == (1, False)
    assert "chore" in found.notes[0]


def test_every_lost_try_counts():
    assert judged([*whole(0, number=3), *whole(1, number=2)]).lost == 3


@pytest.mark.parametrize("first", [[], [entry("start")]], ids=["not begun", "begun"])
def test_a_try_that_the_fault_killed_is_not_lost(first):
    found = judged([*first, *whole(0, number=2), *whole(1)], one())
    assert (found.right, found.killed) == (True, 1)


@pytest.mark.parametrize("killed", [one(1), one(0, 2)], ids=["another task", "another try"])
def test_a_kill_excuses_no_try_but_its_own(killed):
    assert judged([entry("start"), *whole(0, number=2), *whole(1)], killed).lost == 1


def test_the_lost_try_of_a_task_without_effects_is_lost():
    plans = [{"task": "plan", "index": -1, "try": number, "event": "start"} for number in (1, 2)]
    found = judged([*plans, *whole(0), *whole(1)])
    assert (found.lost, found.jobs) == (1, 2)
    assert judged([*plans, *whole(0), *whole(1)], {("plan", -1, 1)}).right


@pytest.mark.parametrize(
    ("killed", "doubled", "repeated"),
    [(set(), 1, 0), (one(0), 0, 1), (one(1), 1, 0), (one(0, 2), 1, 0)],
    ids=["nobody", "its try", "another task", "the later try"],
)
def test_an_effect_that_came_again_is_doubled_unless_its_try_was_killed(killed, doubled, repeated):
    found = judged([*whole(0), *whole(0, number=2), *whole(1)], killed)
    assert (found.doubled, found.repeated, found.jobs) == (doubled, repeated, 3)


def test_an_effect_that_one_try_had_twice_is_doubled():
    found = judged([*whole(0), entry("effect"), *whole(1)], one())
    assert (found.doubled, found.repeated) == (1, 0)


def test_a_try_that_misbehaves_is_ended_and_not_lost():
    found = judged([entry("start"), entry("misbehaves"), *whole(0, number=2), *whole(1)])
    assert (found.right, found.killed, found.jobs) == (True, 1, 3)


@pytest.mark.parametrize("killed", [set(), one()], ids=["ended", "killed"])
def test_a_try_that_misbehaves_has_no_effect_that_could_come_again(killed):
    first = [entry("start"), entry("misbehaves"), entry("effect")]
    found = judged([*first, *whole(0, number=2), *whole(1)], killed)
    assert (found.doubled, found.repeated) == (1, 0)


def test_a_worker_that_needed_a_hand_is_not_right():
    outcome = Outcome("daemon", "1", by_hand=1)
    judge_tasks([*whole(0), *whole(1)], 2, frozenset(), outcome)
    assert not outcome.right


def test_a_run_whose_fault_met_nobody_is_counted_as_such():
    outcomes = [Outcome("task", "1", missed=1), Outcome("task", "2", killed=1)]
    found = summary(outcomes)
    assert (found["runs"], found["missed"], found["killed"]) == (2, 1, 1)
    title, line, _ = table(outcomes).splitlines()
    assert title.split()[2:6] == ["runs", "missed", "jobs", "killed"]
    assert line.split()[-13:-9] == ["2", "1", "0", "1"]


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
