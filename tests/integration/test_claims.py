"""Claims: the order of jobs, and what holds when many claim at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from rows import NOW, claim, queue_job, register, state_of

from edge_otel.models import jobs, upkeep
from edge_otel.models.tables import Job, Worker
from edge_otel.state import JobState, Verdict

SECOND = timedelta(seconds=1)


def test_callbacks_go_first_then_priority_then_time(database):
    with database() as session:
        worker = register(session, "w", NOW)
        late = queue_job(session, NOW + 2 * SECOND, priority=5)
        early = queue_job(session, NOW, priority=5)
        low = queue_job(session, NOW - SECOND, priority=1)
        callback = queue_job(session, NOW + 3 * SECOND, kind="callback", urgency=0)
        order = [claim(session, worker, NOW).id for _ in range(4)]
    assert order == [callback, early, late, low]


@pytest.mark.parametrize(
    ("job", "wish"),
    [
        ({"queue": "gpu"}, {"queues": ["default"]}),
        ({"slots": 5}, {"free_slots": 4}),
        ({"team": "a"}, {}),
        ({"kind": "connection_test"}, {"kinds": ("task", "callback")}),
        ({}, {"queues": []}),
    ],
)
def test_a_job_that_does_not_fit_is_not_given(database, job, wish):
    with database() as session:
        worker = register(session, "w", NOW)
        queue_job(session, NOW, **job)
        assert claim(session, worker, NOW, **wish) is None


def test_a_job_too_big_for_the_worker_does_not_block_the_next(database):
    with database() as session:
        worker = register(session, "w", NOW)
        queue_job(session, NOW, slots=8, priority=9)
        small = queue_job(session, NOW)
        assert claim(session, worker, NOW).id == small


def test_a_workers_team_gets_its_own_jobs_only(database):
    with database() as session:
        worker = register(session, "w", NOW, team="a")
        queue_job(session, NOW)
        mine = queue_job(session, NOW, team="a")
        assert claim(session, worker, NOW).id == mine
        assert claim(session, worker, NOW) is None


def test_many_workers_at_once_get_each_job_exactly_once(database):
    with database() as session:
        for i in range(8):
            register(session, f"w{i}", NOW)
        ids = {queue_job(session, NOW) for _ in range(60)}

    def take_all(name: str) -> list[str]:
        taken = []
        while True:
            with database() as session:
                job = claim(session, session.get(Worker, name), NOW)
                if job is None:
                    return taken
                taken.append(job.id)

    with ThreadPoolExecutor(8) as pool:
        taken = [job_id for part in pool.map(take_all, [f"w{i}" for i in range(8)]) for job_id in part]
    assert sorted(taken) == sorted(ids)


def test_an_offer_that_is_not_accepted_returns_and_its_claim_is_stale(database):
    with database() as session:
        worker = register(session, "w", NOW)
        job_id = queue_job(session, NOW)
        assert claim(session, worker, NOW).claim == 1
    with database() as session:
        assert upkeep.return_expired_offers(session, None, NOW + 30 * SECOND) == 0
        assert upkeep.return_expired_offers(session, None, NOW + 31 * SECOND) == 1
        assert state_of(session, job_id) is JobState.QUEUED
        late = jobs.lock(session, job_id)
        assert jobs.record_report(late, JobState.RUNNING, 1, NOW) is Verdict.STALE
        again = claim(session, session.get(Worker, "w"), NOW)
        assert (again.id, again.claim) == (job_id, 2)


def test_only_one_of_two_acceptances_at_once_is_confirmed(database):
    with database() as session:
        worker = register(session, "w", NOW)
        job_id = queue_job(session, NOW)
        claim(session, worker, NOW)

    def accept(_: int) -> Verdict:
        with database() as session:
            return jobs.record_report(jobs.lock(session, job_id), JobState.RUNNING, 1, NOW)

    with ThreadPoolExecutor(6) as pool:
        verdicts = list(pool.map(accept, range(6)))
    assert sorted(v.name for v in verdicts) == ["REPEATED"] * 5 + ["STORED"]


def test_a_task_that_resumes_after_deferral_is_queued_again_with_a_higher_claim(database):
    with database() as session:
        worker = register(session, "w", NOW)
        job_id = queue_job(session, NOW)
        job = claim(session, worker, NOW)
        jobs.record_report(job, JobState.RUNNING, 1, NOW)
        jobs.record_report(job, JobState.SUCCESS, 1, NOW, exit_code=0)
    with database() as session:
        queue_job(session, NOW, id=job_id)
        job = session.get(Job, job_id)
        assert (job.state, job.exit_code, job.ended_at) == (JobState.QUEUED, None, None)
        assert claim(session, session.get(Worker, "w"), NOW).claim == 2


def test_offers_that_a_restarted_worker_does_not_know_return_at_once(database):
    with database() as session:
        worker = register(session, "w", NOW)
        known, forgotten = queue_job(session, NOW), queue_job(session, NOW + SECOND)
        assert [claim(session, worker, NOW).id for _ in range(2)] == [known, forgotten]
        upkeep.return_offers_of(session, "w", [(known, 1)], NOW)
        assert state_of(session, known) is JobState.ASSIGNED
        assert state_of(session, forgotten) is JobState.QUEUED


def test_purge_removes_what_is_old_enough_and_no_more_than_its_limit(database, monkeypatch):
    monkeypatch.setitem(vars(upkeep), "PURGE_LIMIT", 3)
    with database() as session:
        worker = register(session, "w", NOW)
        for _ in range(5):
            queue_job(session, NOW, log_path=None)
            job = claim(session, worker, NOW)
            jobs.record_report(job, JobState.RUNNING, 1, NOW)
            jobs.record_report(job, JobState.SUCCESS, 1, NOW)
        waiting = queue_job(session, NOW)
    later = NOW + timedelta(minutes=10)

    def purge(succeeded_before) -> int:
        with database() as session:
            old = upkeep.outdated(session, None, succeeded_before, NOW)
            upkeep.delete_finished(session, old, NOW)
            return len(old)

    assert [purge(NOW), purge(later), purge(later), purge(later)] == [0, 3, 2, 0]
    with database() as session:
        assert state_of(session, waiting) is JobState.QUEUED


def test_a_job_whose_log_is_still_coming_is_kept_longer(database):
    with database() as session:
        worker = register(session, "w", NOW)
        queue_job(session, NOW)
        job = claim(session, worker, NOW)
        jobs.record_report(job, JobState.RUNNING, 1, NOW)
        jobs.record_report(job, JobState.SUCCESS, 1, NOW, log_length=1)
    later = NOW + timedelta(minutes=10)
    with database() as session:
        assert upkeep.outdated(session, None, later, later) == []
        assert upkeep.outdated(session, None, later, later + upkeep.INCOMPLETE_LOG_KEPT) == [job.id]


def test_a_workload_of_a_megabyte_is_stored_whole(database):
    text = '{"x": "' + "y" * 1_000_000 + '"}'
    with database() as session:
        worker = register(session, "w", NOW)
        queue_job(session, NOW, workload=text)
        assert claim(session, worker, NOW).workload == text
