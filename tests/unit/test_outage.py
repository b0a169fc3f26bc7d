"""When to try a collector again that has failed."""

from __future__ import annotations

from edge_otel.api.outage import FIRST_WAIT, LONGEST_ASKED, LONGEST_WAIT, TELL_INTERVAL, Outage


def fail(outage: Outage, now: float, asked: float | None = None) -> bool:
    """Let one probe fail at this time."""
    assert outage.begin()
    news = outage.failed(now, asked)
    outage.end()
    return news


def test_the_wait_doubles_up_to_a_limit_and_ends_with_an_answer():
    outage = Outage()
    assert outage.left(0.0) is None
    now, waits = 0.0, []
    for _ in range(8):
        fail(outage, now)
        waits.append(outage.left(now))
        now += waits[-1]
        assert outage.left(now) is None
    assert waits == [FIRST_WAIT, 2, 4, 8, 16, LONGEST_WAIT, LONGEST_WAIT, LONGEST_WAIT]
    assert (outage.ended(), outage.ended()) == (True, False)
    fail(outage, now)
    assert outage.left(now) == FIRST_WAIT


def test_only_the_first_failure_is_news():
    outage = Outage()
    assert [fail(outage, now) for now in (0.0, 0.5, 1.0, 3.0)] == [True, False, False, False]


def test_one_probe_at_a_time_decides_for_all():
    outage = Outage()
    fail(outage, 0.0)
    assert outage.begin()
    assert not outage.begin()
    assert outage.left(5.0) == FIRST_WAIT
    outage.end()
    assert outage.left(5.0) is None, "a probe that ended without a result keeps nobody out"


def test_a_probe_without_an_outage_keeps_nobody_out():
    outage = Outage()
    assert outage.begin()
    assert outage.left(0.0) is None


def test_single_refusals_are_told_of_now_and_then_and_are_no_outage():
    outage = Outage()
    assert [outage.refused(now) for now in (0.0, 1.0, TELL_INTERVAL, TELL_INTERVAL + 1)] == [True, False, True, False]
    assert outage.left(0.0) is None


def test_a_collector_may_ask_for_a_wait_within_limits():
    outage = Outage()
    for asked, wait in ((7.0, 7.0), (0.0, FIRST_WAIT), (1e9, LONGEST_ASKED)):
        fail(outage, 100.0, asked)
        assert outage.left(100.0) == wait
        outage.ended()
