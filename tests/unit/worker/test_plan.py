"""The daemon's decisions."""

from __future__ import annotations

import itertools

import pytest
from edge_worker.endings import judge_ending, rose
from edge_worker.plan import (
    CHANNEL_RETRY_LAST,
    STEADY,
    Answer,
    Departure,
    Miss,
    Push,
    Readopted,
    Route,
    after_reply,
    backoff,
    closed,
    free_slots,
    jittered,
    missed,
    notable,
    opened,
    push,
    read_answer,
    read_retry_after,
    read_upgrade,
    readopt,
    returning,
    tries_channel,
    unanswered,
)

from edge_otel.state import Facts, WorkerState


@pytest.mark.parametrize(
    ("status", "error", "meaning"),
    [
        (200, None, Answer.GOOD),
        (202, None, Answer.GOOD),
        (301, None, Answer.LATER),
        (401, None, Answer.NOT_ALLOWED),
        (403, "Forbidden", Answer.NOT_ALLOWED),
        (404, None, Answer.LATER),
        (404, "JobNotFound", Answer.STALE),
        (404, "WorkerNotFound", Answer.FORGOTTEN),
        (409, None, Answer.LATER),
        (409, "StaleClaim", Answer.STALE),
        (409, "SessionReplaced", Answer.REPLACED),
        (409, "NameTaken", Answer.REFUSED),
        (416, "LogGap", Answer.REWIND),
        (422, "BadInput", Answer.REFUSED),
        (422, None, Answer.LATER),
        (429, "TooMany", Answer.LATER),
        (500, "EdgeError", Answer.LATER),
        (503, None, Answer.LATER),
    ],
)
def test_meaning_of_an_answer(status: int, error: str | None, meaning: Answer) -> None:
    assert read_answer(status, error) is meaning


@pytest.mark.parametrize(
    ("status", "error", "meaning"),
    [
        (200, None, Answer.NO_CHANNEL),
        (301, None, Answer.NO_CHANNEL),
        (400, "BadInput", Answer.NO_CHANNEL),
        (401, None, Answer.NO_CHANNEL),
        (401, "Forbidden", Answer.NOT_ALLOWED),
        (403, None, Answer.NO_CHANNEL),
        (403, "Forbidden", Answer.NOT_ALLOWED),
        (404, "WorkerNotFound", Answer.NO_CHANNEL),
        (408, None, Answer.LATER),
        (426, None, Answer.NO_CHANNEL),
        (429, None, Answer.LATER),
        (500, "EdgeError", Answer.LATER),
        (503, "TooBusy", Answer.LATER),
    ],
)
def test_meaning_of_an_answer_to_the_upgrade(status: int, error: str | None, meaning: Answer) -> None:
    assert read_upgrade(status, error) is meaning


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, None), ("", None), ("2", 2), ("99999", 300), ("-1", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)],
)
def test_retry_after_is_whole_seconds_within_reason(text: str | None, seconds: float | None) -> None:
    assert read_retry_after(text) == seconds


def test_those_who_were_told_when_to_return_come_not_sooner_and_not_all_at_once() -> None:
    assert (returning(0, 0.0), returning(0, 1.0)) == (0, 1)
    assert (returning(10, 0.0), returning(10, 1.0)) == (10, 16)


@pytest.mark.parametrize("transport", ["channel", "polling"])
def test_a_transport_that_was_chosen_is_the_only_one(transport: str) -> None:
    route = Route(transport)
    for miss in [*Miss] * 5:
        route = closed(missed(route, miss, 0, 0.5), 0, False, 0, 0.5)
        assert tries_channel(route, 0) is (transport == "channel")


@pytest.mark.parametrize(("miss", "times"), [(Miss.IMPOSSIBLE, 1), (Miss.BROKEN, 3), (Miss.PACED, 12)])
def test_channel_is_given_up_after_failures_in_a_row_by_what_they_say(miss: Miss, times: int) -> None:
    route = Route("auto")
    for _ in range(times):
        assert tries_channel(route, 5)
        route = missed(route, miss, 5, 0.5)
    assert not tries_channel(route, 5)
    assert tries_channel(route, 5 + route.retry)
    broken = missed(missed(Route("auto"), Miss.BROKEN, 0, 0), Miss.BROKEN, 0, 0)
    assert tries_channel(missed(opened(broken), Miss.BROKEN, 0, 0), 0)


def test_channel_is_tried_again_ever_more_seldom_with_jitter() -> None:
    route, pauses = Route("auto", retry=60), []
    for _ in range(7):
        route = missed(route, Miss.IMPOSSIBLE, 100, 0.5)
        pauses.append(route.due - 100)
    assert pauses == [60, 120, 240, 480, CHANNEL_RETRY_LAST, CHANNEL_RETRY_LAST, CHANNEL_RETRY_LAST]
    assert missed(Route("auto", retry=60), Miss.IMPOSSIBLE, 0, 0.0).due == 45


def test_channel_is_tried_first_when_polling_did_not_work_either() -> None:
    route = unanswered(missed(Route("auto"), Miss.IMPOSSIBLE, 0, 0.5))
    assert tries_channel(route, 0)


def test_channel_that_opens_but_does_not_last_is_given_up() -> None:
    route = Route("auto")
    for _ in range(3):
        assert tries_channel(route, 0)
        route = closed(opened(route), STEADY - 1, False, 0, 0.5)
    assert not tries_channel(route, 0)
    again = closed(opened(route), STEADY - 1, False, 100, 0.5)
    assert again.due - 100 == 2 * route.retry


def test_channel_that_lasted_or_ended_in_order_is_kept() -> None:
    route = Route("auto")
    for lived, orderly in [(0, False), (0, False), (STEADY, False), (0, True), (0, False), (0, True), (0, False)]:
        route = closed(opened(route), lived, orderly, 0, 0.5)
        assert tries_channel(route, 0)


def test_backoff_grows_from_half_a_second_to_thirty_with_full_jitter() -> None:
    assert [backoff(attempt, 1.0) for attempt in (0, 1, 2, 5, 6, 100, 10**6)] == [0.5, 1, 2, 16, 30, 30, 30]
    assert all(backoff(attempt, 0.0) == 0 for attempt in range(9))


def test_jitter_stays_within_a_quarter() -> None:
    assert (jittered(10, 0.0), jittered(10, 1.0)) == (7.5, 12.5)


def test_maintenance_that_began_after_the_report_is_not_ended_by_its_answer() -> None:
    inside = Facts(maintenance=True)
    assert after_reply(inside, WorkerState.IDLE, WorkerState.IDLE).maintenance
    assert after_reply(inside, WorkerState.STARTING, WorkerState.RUNNING).maintenance


@pytest.mark.parametrize("reported", [WorkerState.MAINTENANCE_MODE, WorkerState.MAINTENANCE_PENDING])
@pytest.mark.parametrize("stored", [WorkerState.IDLE, WorkerState.RUNNING, WorkerState.MAINTENANCE_EXIT])
def test_maintenance_ends_when_the_report_told_of_it(reported: WorkerState, stored: WorkerState) -> None:
    assert not after_reply(Facts(maintenance=True), reported, stored).maintenance


def test_every_reply_to_every_report_keeps_a_drain() -> None:
    for reported, stored in itertools.product(WorkerState, WorkerState):
        assert after_reply(Facts(draining=True), reported, stored).draining


def test_no_slot_is_free_while_draining_or_in_maintenance_or_overbooked() -> None:
    assert free_slots(Facts(), 4, 1) == 3
    assert free_slots(Facts(), 2, 5) == 0
    assert free_slots(Facts(draining=True), 4, 0) == 0
    assert free_slots(Facts(maintenance=True), 4, 0) == 0


def test_drain_without_timeout_waits_for_ever() -> None:
    assert push(Departure(0, None, 10), 1e9) == (Push.WAIT, None)


@pytest.mark.parametrize(
    ("now", "action", "until"),
    [
        (0, Push.WAIT, 30),
        (29.9, Push.WAIT, 30),
        (30, Push.TERMINATE, 40),
        (39, Push.TERMINATE, 40),
        (40, Push.KILL, None),
    ],
)
def test_drain_terminates_after_its_timeout_and_kills_after_the_grace(
    now: float, action: Push, until: float | None
) -> None:
    assert push(Departure(0, 30, 10), now) == (action, until)


@pytest.mark.parametrize(
    ("started", "judged", "delivered", "how"),
    [
        (False, False, False, Readopted.ACCEPT),
        (True, False, False, Readopted.WATCH),
        (True, True, False, Readopted.REPORT),
        (False, True, False, Readopted.REPORT),
        (True, True, True, Readopted.FORGET),
    ],
)
def test_what_becomes_of_a_folder_found_again(started: bool, judged: bool, delivered: bool, how: Readopted) -> None:
    assert readopt(started, judged, delivered) is how


@pytest.mark.parametrize(
    ("code", "said", "stopped", "state", "oom", "succeeded", "outcome", "error_type"),
    [
        (0, None, None, None, False, True, "success", None),
        (0, None, None, "success", False, True, "success", None),
        (0, None, None, "failed", False, True, "failed", "task_failed"),
        (0, None, None, "up_for_retry", False, True, "failed", "task_failed"),
        (0, None, None, None, True, True, "success", None),
        (0, None, None, "failed", True, True, "failed", "task_failed"),
        (1, None, None, None, False, False, "failed", "task_failed"),
        (1, None, None, None, True, False, "failed", "task_failed"),
        (3, None, None, "up_for_retry", False, False, "failed", "task_failed"),
        (1, "no such bundle", None, None, False, False, "failed", "supervisor_failed"),
        (-9, None, None, None, False, False, "killed", "signal_9"),
        (-9, None, None, "up_for_retry", False, False, "killed", "signal_9"),
        (-9, None, None, "failed", True, False, "killed", "out_of_memory"),
        (-15, None, None, None, True, False, "killed", "signal_15"),
        (-15, None, None, "SERVER_TERMINATED", False, False, "killed", "cancelled"),
        (None, None, None, None, False, False, "killed", "result_missing"),
        (None, None, None, None, True, False, "killed", "out_of_memory"),
        (-15, None, "drain", None, False, False, "killed", "stopped_by_worker"),
        (-9, None, "drain", None, True, False, "killed", "stopped_by_worker"),
        (0, None, "drain", "failed", False, False, "killed", "stopped_by_worker"),
        (0, None, "drain", "success", False, True, "success", None),
    ],
)
def test_how_a_job_ended(
    code: int | None,
    said: str | None,
    stopped: str | None,
    state: str | None,
    oom: bool,
    succeeded: bool,
    outcome: str,
    error_type: str | None,
) -> None:
    ending = judge_ending(code, said, stopped, state, oom)
    assert (ending.succeeded, ending.outcome, ending.error_type) == (succeeded, outcome, error_type)
    assert (ending.error is None) == succeeded


def test_how_a_job_ended_whose_machine_was_restarted() -> None:
    assert judge_ending(None, None, None, None, restarted=True).error_type == "machine_restarted"
    assert judge_ending(0, None, None, "success", restarted=True).error_type is None
    assert judge_ending(None, "not readable", None, None, restarted=True).error_type == "result_missing"


def test_a_counter_that_was_not_read_or_began_anew_has_not_risen() -> None:
    assert rose(0, 1)
    assert not any(rose(*pair) for pair in [(1, 1), (5, 2), (None, 1), (0, None), (None, None)])


@pytest.mark.parametrize(
    ("sampled", "failed", "seconds", "expected"),
    [(False, False, 0.9, False), (True, False, 0, True), (False, True, 0, True), (False, False, 1.1, True)],
)
def test_heartbeat_is_recorded_when_sampled_failed_or_slow(
    sampled: bool, failed: bool, seconds: float, expected: bool
) -> None:
    assert notable(sampled, failed, seconds) is expected
