"""What the benchmark counts, and what it says of it."""

from __future__ import annotations

import pytest

from tests.bench.figures import Figure
from tests.bench.spread import percentile
from tests.bench.statements import kind, statements
from tests.bench.tally import Tally


def test_statements_that_a_driver_joined_are_counted_one_by_one():
    joined = r"UPDATE edge_job SET a='x;''y', b=E'\';' WHERE id = 1;UPDATE edge_otel_job SET a=2; "
    assert [kind(part) for part in statements(joined)] == ["UPDATE edge_job", "UPDATE edge_otel_job"]


@pytest.mark.parametrize(
    ("ours", "edge3", "met"), [(0.1, 2.0, True), (0.1, 0.9, False), (0.6, 9.0, False), (None, 1.0, None)]
)
def test_a_goal_is_met_when_ratio_and_bound_are(ours, edge3, met):
    figure = Figure("key", "seconds", times=10, most=0.5)
    assert figure.met(ours, figure.ratio(ours, edge3)) is met


def test_ratios_say_how_many_times_better_ours_is():
    assert Figure("key", "per second", more_is_better=True).ratio(100, 20) == 5
    assert Figure("key", "seconds").ratio(1, 20) == 20


def test_a_job_with_two_holders_is_doubled_and_one_without_an_end_is_lost():
    tally = Tally()
    tally.holders["twice"] = {("a", 1), ("b", 2)}
    tally.holders["once"] = {("a", 1)}
    tally.ended = {"twice"}
    assert tally.doubled() == 1
    assert tally.lost(["once", "twice", "never"]) == 2


def test_a_percentile_is_a_value_that_was_measured():
    assert percentile([1, 2, 3, 4], 0.5) == 2
    assert percentile([1, 2, 3, 4], 0.99) == 4
