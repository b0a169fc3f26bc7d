"""When the daemon counts as alive, and when as ready."""

from __future__ import annotations

from dataclasses import replace

import pytest
from edge_worker.liveness import INTERVALS, SLACK, Doing, Standing, overdue, unready

WELL = Standing(registered=True, contact_age=3, interval=10, leaving=None, maintenance=None, unwritable=None)


def test_a_loop_is_stuck_once_it_is_over_its_bound_and_is_told_by_name() -> None:
    loops = {"heartbeat": Doing("sending", 100, 30), "fetch": Doing("waiting", 0)}
    assert overdue(loops, 130) == []
    assert overdue(loops, 131) == ["heartbeat: sending for 31 s, which takes 30 s at most"]


def test_what_has_no_bound_is_never_stuck() -> None:
    assert overdue({"leave": Doing("waiting for the jobs to end", 0)}, 1e9) == []


def test_ready_is_who_is_registered_heard_and_takes_jobs() -> None:
    assert unready(WELL) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"registered": False}, "not registered"),
        ({"contact_age": None}, "not answered yet"),
        ({"contact_age": INTERVALS * 10 + SLACK + 1}, "not answered for 36 s"),
        ({"leaving": "SIGTERM was received"}, "leaving: SIGTERM"),
        ({"maintenance": "belt broken"}, "in maintenance: belt broken"),
        ({"maintenance": ""}, "in maintenance"),
        ({"unwritable": "Read-only file system"}, "cannot be written: Read-only"),
    ],
    ids=str,
)
def test_each_obstacle_is_told_in_words(change: dict[str, object], said: str) -> None:
    (reason,) = unready(replace(WELL, **change))  # type: ignore[arg-type]
    assert said in reason


def test_contact_is_recent_for_some_of_its_own_intervals() -> None:
    assert unready(replace(WELL, interval=60, contact_age=180)) == []
    assert unready(replace(WELL, interval=1, contact_age=180)) != []
