"""What of that which a user's function tells can be reported."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from edge_worker.facts import MOST, usable
from edge_worker.facts_run import call

from edge_otel.wire import MAX_FACTS, OWN_FACTS, WorkerReport


def test_text_numbers_and_times_are_taken():
    told = {"a": "b", "n": 1, "f": 0.5, "t": datetime(2026, 1, 1, tzinfo=UTC), "status": "Warning"}
    assert usable(call(lambda: told)["told"]) == ({**told, "t": "2026-01-01T00:00:00+00:00"}, [])


@pytest.mark.parametrize(
    "told",
    [
        {"n": float("nan")},
        {"n": float("inf")},
        {"n": 2**2000},
        {"n": None},
        {"n": [1]},
        {"n": "x" * 2000},
        {"n": "\ud800"},
        {"x" * 65: 1},
        {"": 1},
        {7: 1},
        {"concurrency": 100},
        {"cpu_percent": 1.0},
    ],
    ids=str,
)
def test_what_cannot_be_reported_is_left_out_and_told_and_the_rest_is_taken(told):
    found, wrong = usable(call(lambda: {**told, "good": 1})["told"])
    assert found == {"good": 1}
    ((name, value),) = told.items()
    assert len(wrong) == 1
    assert repr(name)[:60] in wrong[0]
    assert name in OWN_FACTS or f"({type(value).__name__})" in wrong[0]


@pytest.mark.parametrize("told", [None, [], "text", 7, {1, 2}])
def test_what_is_no_dict_is_told(told):
    assert call(lambda: told) == {"wrong": f"it returned {type(told).__name__} instead of a dict"}


@pytest.mark.parametrize("value", [1, None], ids=["good", "bad"])
def test_ten_thousand_facts_are_cut_to_what_a_report_may_hold(value):
    found, wrong = usable({f"f{number}": value for number in range(10_000)})
    assert len(found) <= MOST
    assert "of its 10000 facts" in wrong[-1]
    assert len(found) + len(OWN_FACTS) <= MAX_FACTS
    WorkerReport.model_validate({"state": "idle", "sysinfo": {**found, **dict.fromkeys(OWN_FACTS, 1)}})


def test_many_long_texts_are_cut_for_heartbeats_stay_small():
    found, wrong = usable({f"f{number}": "x" * 1000 for number in range(40)})
    assert 5 < len(found) < 9
    assert "8192 characters" in wrong[-1]


def test_a_status_that_is_no_level_is_told():
    assert "no level" in usable({"status": "purple"})[1][0]
