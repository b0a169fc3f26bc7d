"""What becomes of a running job that its worker does not report."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from edge_otel.reconcile import RunningJob, outcome, silent_since
from edge_otel.state import JobState

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
GRACE = timedelta(seconds=150)
SECOND = timedelta(seconds=1)

ENDED_WELL = ["success", "skipped", "deferred", "scheduled", "up_for_reschedule", "awaiting_input"]
ENDED_BADLY = ["failed", "up_for_retry", "upstream_failed"]
NOT_THERE = [None, "removed"]


def job(*, gone: bool, state: str | None, changed: timedelta = timedelta(hours=1), **fields: object) -> RunningJob:
    """Return a running task's job that changed so long ago."""
    values = {"is_task": True, "task_ended_at": None} | fields
    return RunningJob(changed_at=NOW - changed, worker_gone=gone, task_state=state, **values)


@pytest.mark.parametrize("gone", [True, False])
@pytest.mark.parametrize("state", ["running", "restarting"])
def test_a_task_that_airflow_says_is_running_is_left_alone(gone, state):
    assert outcome(job(gone=gone, state=state), NOW, GRACE) is None


def test_a_task_that_never_reached_airflow_is_lost_with_its_worker_only():
    assert outcome(job(gone=True, state="queued"), NOW, GRACE) is JobState.LOST
    assert outcome(job(gone=False, state="queued"), NOW, GRACE) is None


@pytest.mark.parametrize("is_task", [True, False])
@pytest.mark.parametrize(("silence", "expected"), [(119, None), (121, JobState.LOST)])
def test_a_worker_that_is_silent_since_a_moment_may_come_back_with_its_job(is_task, silence, expected):
    last_heartbeat = NOW - timedelta(seconds=silence)
    waiting = job(gone=True, state="queued", last_heartbeat=last_heartbeat, is_task=is_task)
    assert outcome(waiting, NOW, GRACE) is expected
    accepted = job(gone=True, state="queued", last_heartbeat=last_heartbeat, is_task=is_task, changed=timedelta(0))
    assert outcome(accepted, NOW, GRACE) is None


def test_a_scheduler_whose_clock_is_behind_takes_no_job_from_a_worker_that_was_just_heard():
    fields = {"last_heartbeat": NOW - SECOND, "gone_since": NOW - timedelta(minutes=10)}
    assert outcome(job(gone=True, state="queued", **fields), NOW, GRACE) is None


@pytest.mark.parametrize(("gone_for", "expected"), [(119, None), (121, JobState.LOST)])
def test_the_time_to_come_back_begins_when_the_worker_is_taken_for_gone(gone_for, expected):
    gone_since = NOW - timedelta(seconds=gone_for)
    silent = job(gone=True, state="queued", last_heartbeat=NOW - timedelta(days=1), gone_since=gone_since)
    assert outcome(silent, NOW, GRACE) is expected


@pytest.mark.parametrize(
    ("state", "expected"),
    [(s, JobState.SUCCESS) for s in ENDED_WELL]
    + [(s, JobState.FAILED) for s in ENDED_BADLY]
    + [(s, JobState.LOST) for s in NOT_THERE],
)
def test_airflows_account_of_a_task_whose_worker_is_gone_decides_at_once(state, expected):
    assert outcome(job(gone=True, state=state, changed=timedelta(0)), NOW, GRACE) is expected
    assert outcome(job(gone=False, state=state), NOW, GRACE) is expected


@pytest.mark.parametrize("state", ENDED_WELL + ENDED_BADLY + NOT_THERE)
def test_a_worker_that_is_there_gets_time_to_report(state):
    assert outcome(job(gone=False, state=state, changed=GRACE - SECOND), NOW, GRACE) is None
    assert outcome(job(gone=False, state=state, changed=GRACE), NOW, GRACE) is not None


def test_the_time_to_report_begins_with_the_end_of_the_task():
    long_task = job(gone=False, state="success", task_ended_at=NOW - GRACE + SECOND)
    assert outcome(long_task, NOW, GRACE) is None
    assert outcome(long_task, NOW + SECOND, GRACE) is JobState.SUCCESS


def test_what_is_no_task_is_lost_with_its_worker():
    assert outcome(job(gone=True, state=None, is_task=False), NOW, GRACE) is JobState.LOST
    assert outcome(job(gone=False, state=None, is_task=False), NOW, GRACE) is None


def test_a_worker_counts_as_gone_after_five_of_its_intervals():
    assert silent_since(NOW, 30) == NOW - timedelta(seconds=150)


def test_every_task_state_of_airflow_is_known_here():
    from airflow.utils.state import TaskInstanceState

    known = {"queued", "running", "restarting", *ENDED_WELL, *ENDED_BADLY, "removed"}
    assert {state.value for state in TaskInstanceState} == known


PROMISE = timedelta(seconds=100)


@pytest.mark.parametrize("state", ["running", "restarting"])
@pytest.mark.parametrize(("silence", "expected"), [(159, None), (161, JobState.LOST)])
def test_a_task_is_lost_when_its_silent_worker_has_promised_to_have_stopped_it(state, silence, expected):
    last_heartbeat = NOW - timedelta(seconds=silence)
    cut_off = job(gone=True, state=state, last_heartbeat=last_heartbeat, stopped_after=PROMISE)
    assert outcome(cut_off, NOW, GRACE) is expected


@pytest.mark.parametrize(("gone_for", "expected"), [(60, None), (61, JobState.LOST)])
def test_the_promise_of_a_worker_that_counts_as_gone_since_a_moment_is_not_relied_on_yet(gone_for, expected):
    last, gone = NOW - timedelta(days=1), NOW - timedelta(seconds=gone_for)
    silent = job(gone=True, state="running", last_heartbeat=last, gone_since=gone, stopped_after=PROMISE)
    assert outcome(silent, NOW, GRACE) is expected


def test_neither_a_worker_that_is_there_nor_one_that_keeps_its_jobs_nor_an_unknown_one_loses_a_task():
    long_ago = {"last_heartbeat": NOW - timedelta(days=1)}
    assert outcome(job(gone=False, state="running", stopped_after=PROMISE, **long_ago), NOW, GRACE) is None
    assert outcome(job(gone=True, state="running", stopped_after=None, **long_ago), NOW, GRACE) is None
    assert outcome(job(gone=True, state="running", stopped_after=PROMISE), NOW, GRACE) is None


def test_a_job_that_was_accepted_after_the_last_heartbeat_is_one_more_contact():
    fields = {"last_heartbeat": NOW - timedelta(hours=1), "stopped_after": PROMISE}
    assert outcome(job(gone=True, state="running", changed=timedelta(seconds=30), **fields), NOW, GRACE) is None
