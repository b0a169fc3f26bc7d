"""Which runs of a task must be whole for its log to be complete: a task that was deferred has several, at several
workers, and one that was taken away has one that nobody reports."""

from __future__ import annotations

from datetime import timedelta

import pytest
from rows import NOW, claim, queue_job, register

from edge_otel.models import jobs, logs, upkeep
from edge_otel.models.reports import Report, record_all
from edge_otel.models.tables import Job, Log, Worker
from edge_otel.state import JobState, Verdict
from edge_otel.wire import JobOutcome

SECOND = timedelta(seconds=1)


def run(database, worker="w", *, job_id=None, at=NOW, until=JobState.SUCCESS, **end):
    """Let a worker run a job, which it may have run before, and report its end; return its id."""
    with database() as session:
        holder = session.get(Worker, worker) or register(session, worker, NOW)
        job_id = queue_job(session, at, **({"id": job_id} if job_id else {}))
        job = claim(session, holder, at)
        jobs.record_report(job, JobState.RUNNING, job.claim, at)
        if until is not JobState.RUNNING:
            jobs.record_report(job, until, job.claim, at, **end)
    return job_id


def missing(database, job_id):
    """Return what is missing of the log, in words."""
    with database() as session:
        return "; ".join(logs.missing(session.get(Job, job_id), logs.lengths(session, job_id)).values()) or None


def ended(worker, job_id, claim, length, state=JobState.SUCCESS):
    """Return a worker's report of an end."""
    return Report(worker, job_id, claim, state, JobOutcome(log_length=length, log_sha256="0" * 64))


def append(database, job_id, claim, offset, data):
    with database() as session:
        logs.append(session, jobs.lock(session, job_id), claim, offset, data)


def test_an_end_that_comes_after_its_task_has_gone_on_elsewhere_says_how_long_that_log_is(database):
    job_id = run(database, "a", until=JobState.RUNNING)
    run(database, "b", job_id=job_id, until=JobState.RUNNING, at=NOW + SECOND)
    with database() as session:
        accepted = session.get(Job, job_id).accepted_at
        told = record_all(session, [ended("a", job_id, 1, 5), ended("c", job_id, 1, 9)], NOW + 2 * SECOND)
        assert [one.verdict for one in told] == [Verdict.STALE, Verdict.STALE]
    with database() as session:
        job = session.get(Job, job_id)
        assert job.log_ends == {"1": [5, "0" * 64]}
        assert (job.state, job.accepted_at, job.changed_at) == (JobState.RUNNING, accepted, accepted)
        record_all(session, [ended("b", job_id, 2, 0)], NOW + 3 * SECOND)
    assert missing(database, job_id) == "bytes 0 to 4 of run 1 have not come from edge worker a"
    append(database, job_id, 1, 0, b"12345")
    assert missing(database, job_id) is None


def test_the_end_of_a_run_of_a_finished_job_may_be_what_completes_its_log(database):
    job_id = run(database, "a", until=JobState.RUNNING)
    run(database, "b", job_id=job_id, log_length=0)
    assert "bytes 0 on of run 1" in missing(database, job_id)
    with database() as session:
        (told,) = record_all(session, [ended("a", job_id, 1, 0)], NOW)
    assert (told.verdict, told.log_to_write) == (Verdict.STALE, job_id)
    assert missing(database, job_id) is None


def test_an_end_that_is_told_again_counts_as_it_was_told_last(database):
    job_id = run(database, "a", log_length=9)
    append(database, job_id, 1, 0, b"12345")
    assert missing(database, job_id) == "bytes 5 to 8 have not come from edge worker a"
    with database() as session:
        (told,) = record_all(session, [ended("a", job_id, 1, 5)], NOW)
    assert (told.verdict, told.log_to_write) == (Verdict.REPEATED, job_id)
    assert missing(database, job_id) is None


def test_a_job_that_was_taken_away_waits_for_the_log_of_its_worker(database):
    job_id = run(database, "a", until=JobState.RUNNING)
    with database() as session:
        upkeep.withdraw(session, job_id, NOW)
    assert missing(database, job_id) == "bytes 0 on have not come from edge worker a"
    append(database, job_id, 1, 0, b"last")
    with database() as session:
        (told,) = record_all(session, [ended("a", job_id, 1, 4, JobState.FAILED)], NOW)
        assert told.verdict is Verdict.STALE
    assert missing(database, job_id) is None


def test_a_job_that_was_taken_away_before_it_ran_waits_for_nothing(database):
    with database() as session:
        job_id = queue_job(session, NOW)
        claim(session, register(session, "a", NOW), NOW)
        upkeep.withdraw(session, job_id, NOW)
        assert session.get(Job, job_id).holders == {}
    assert missing(database, job_id) is None


def test_a_job_whose_row_was_deleted_goes_on_behind_its_log(database):
    job_id = run(database, log_length=4)
    append(database, job_id, 1, 0, b"one\n")
    with database() as session:
        session.delete(session.get(Job, job_id))
    run(database, job_id=job_id, log_length=4)
    append(database, job_id, 2, 0, b"two\n")
    with database() as session:
        assert b"".join(logs.read(session, job_id)) == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("until", "late", "expected"),
    [
        (None, 5 * SECOND, {1: 4}),
        (JobState.ASSIGNED, 5 * SECOND, {1: 4}),
        (JobState.RUNNING, 5 * SECOND, {1: 4}),
        ("edge3", SECOND, {1: 4}),
        ("edge3", 5 * SECOND, {2: 4}),
    ],
    ids=["queued again", "offered to another", "at a worker of ours", "at edge3, before", "at edge3, since"],
)
def test_what_an_edge3_worker_pushes_after_its_task_has_gone_on_belongs_to_its_own_run(database, until, late, expected):
    job_id = run(database, "a", until=JobState.RUNNING)
    with database() as session:
        jobs.lock(session, job_id).log_ends = {"1": [None, None]}
    with database() as session:
        queue_job(session, NOW + SECOND, id=job_id)
        if until is not None:
            job = claim(session, register(session, "b", NOW), NOW + 2 * SECOND)
        if until in (JobState.RUNNING, "edge3"):
            jobs.record_report(job, JobState.RUNNING, 2, NOW + 3 * SECOND)
        if until == "edge3":
            job.log_ends = {**job.log_ends, "2": [None, None]}
    with database() as session:
        assert logs.push(session, jobs.lock(session, job_id), b"late", NOW + late) == 4
        assert logs.lengths(session, job_id) == expected


@pytest.mark.parametrize("homes", [logs.Homes(uploads=True), logs.Homes(only_here=True)], ids=["s3://", "edge://"])
def test_what_came_of_a_log_outlives_its_job_however_long_the_task_ran(database, homes):
    job_id = run(database, until=JobState.RUNNING)
    append(database, job_id, 1, 0, b"precious\n")
    late = NOW + timedelta(days=40)
    with database() as session:
        upkeep.settle(session, job_id, 1, JobState.FAILED, "gone", late)
    with database() as session:
        upkeep.delete_finished(session, [job_id], late)
        logs.purge(session, homes, late - timedelta(days=30))
    with database() as session:
        log = session.get(Log, job_id)
        assert (log.upload, log.export_due, log.changed_at) == ("due", True, late)
        assert b"".join(logs.read(session, job_id)) == b"precious\n"
