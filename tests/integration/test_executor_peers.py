"""Several schedulers: adoption, teams, revocation, and clocks that differ."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import pytest
from airflow.utils.state import CallbackState, TaskInstanceState
from airflow_rows import callback_workload, put_task_instance, task_workload, workload_of
from rows import NOW, claim
from scheduler import events, queue, run

import edge_otel.executor as executor_module
from edge_otel.executor import EdgeExecutor
from edge_otel.models import jobs
from edge_otel.models.tables import Job, Worker
from edge_otel.state import JobState, Verdict

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True),
    pytest.mark.usefixtures("no_task_instances"),
]

SECOND = timedelta(seconds=1)


def test_a_revoked_task_is_over_its_claim_is_stale_and_nothing_is_told(executor, database, worker):
    with database() as session:
        queued, running = (put_task_instance(session, "queued") for _ in range(2))
    queue(database, executor, workload_of(running))
    job_id = run(database)
    queue(database, executor, workload_of(queued))
    executor.sync()
    executor.get_event_buffer()
    for ti in (queued, running):
        executor.revoke_task(ti=ti)
        executor.revoke_task(ti=ti)
    executor.sync()
    assert (executor.slots_occupied, events(executor)) == (0, {})
    with database() as session:
        job = jobs.lock(session, job_id)
        assert (job.state, job.claim) == (JobState.LOST, 2)
        assert jobs.record_report(job, JobState.SUCCESS, 1, NOW) is Verdict.STALE


def test_a_new_scheduler_adopts_what_is_in_the_table_and_tells_what_ended_meanwhile(database, worker):
    before = EdgeExecutor(parallelism=8)
    with database() as session:
        tis = [put_task_instance(session, "queued") for _ in range(4)]
    ended, running, queued, unknown = tis
    queue(database, before, workload_of(ended))
    run(database, JobState.SUCCESS)
    queue(database, before, workload_of(running))
    run(database)
    queue(database, before, workload_of(queued))
    after = EdgeExecutor(parallelism=8)
    assert list(after.try_adopt_task_instances(tis)) == [unknown]
    assert events(after) == {ended.key: TaskInstanceState.SUCCESS, running.key: TaskInstanceState.RUNNING}
    assert (list(after.queued_tasks), after.running) == ([queued.key], {running.key})
    after.heartbeat()
    run(database, JobState.SUCCESS)
    after.sync()
    assert events(after) == {queued.key: TaskInstanceState.SUCCESS}


def test_two_schedulers_each_tell_only_their_own(database, worker):
    executors = [EdgeExecutor(parallelism=8) for _ in range(2)]
    workloads = [task_workload(task_id=f"t{n}") for n in range(2)]
    for executor, workload in zip(executors, workloads, strict=True):
        queue(database, executor, workload)
    for _ in workloads:
        run(database, JobState.SUCCESS)
    for executor, workload in zip(executors, workloads, strict=True):
        executor.sync()
        assert events(executor) == {workload.key: TaskInstanceState.SUCCESS}


def test_teams_are_apart(database, worker):
    red, blue = EdgeExecutor(parallelism=8, team_name="red"), EdgeExecutor(parallelism=8, team_name="blue")
    workloads = {"red": task_workload(task_id="red"), "blue": task_workload(task_id="blue")}
    queue(database, red, workloads["red"])
    queue(database, blue, workloads["blue"])
    with database() as session:
        session.get(Worker, "w").team = "blue"
    assert run(database, JobState.FAILED) == str(workloads["blue"].ti.id)
    red.sync()
    blue.sync()
    assert events(red) == {}
    assert events(blue) == {workloads["blue"].key: TaskInstanceState.FAILED}


def test_a_change_that_was_committed_late_is_found(executor, database, worker):
    workload = task_workload()
    queue(database, executor, workload)
    executor.sync()
    now = datetime.now(UTC)
    with database() as session:
        job = claim(session, session.get(Worker, "w"), now)
        jobs.record_report(job, JobState.RUNNING, 1, now - 9 * SECOND)
    executor.sync()
    assert events(executor) == {workload.key: TaskInstanceState.RUNNING}


def test_a_change_by_a_host_whose_clock_is_far_behind_is_found_by_the_slow_look(
    executor, database, worker, monkeypatch
):
    workload = task_workload()
    queue(database, executor, workload)
    executor.sync()
    with database() as session:
        job = claim(session, session.get(Worker, "w"), datetime.now(UTC))
        jobs.record_report(job, JobState.RUNNING, 1, datetime.now(UTC) - timedelta(hours=1))
    executor.sync()
    assert events(executor) == {}
    monkeypatch.setattr(executor_module, "_RECONCILE_INTERVAL", timedelta(0))
    executor.sync()
    assert events(executor) == {workload.key: TaskInstanceState.RUNNING}


def test_a_host_whose_clock_is_ahead_hides_no_change_of_others(executor, database, worker):
    first, second = task_workload(task_id="t1"), task_workload(task_id="t2")
    queue(database, executor, first, second)
    ahead = datetime.now(UTC) + timedelta(hours=1)
    with database() as session:
        job = claim(session, session.get(Worker, "w"), ahead)
        jobs.record_report(job, JobState.RUNNING, 1, ahead)
    executor.sync()
    run(database)
    executor.sync()
    assert set(events(executor)) == {first.key, second.key}


def test_a_scheduler_that_starts_takes_over_the_callbacks(database, worker):
    before, after = EdgeExecutor(parallelism=8), EdgeExecutor(parallelism=8)
    workloads = [callback_workload(), callback_workload()]
    queue(database, before, workloads[0])
    run(database, JobState.SUCCESS)
    queue(database, before, workloads[1])
    after.start()
    assert events(after) == {workloads[0].key: CallbackState.SUCCESS}
    assert after.slots_occupied == 1
    run(database, JobState.FAILED)
    after.sync()
    assert events(after) == {workloads[1].key: CallbackState.FAILED}


def test_a_task_that_is_queued_again_while_its_end_is_stored_starts_over(database, worker):
    """Two schedulers: one queues the task that resumes while a server stores the end of its first part."""
    executor, workload = EdgeExecutor(parallelism=8), task_workload()
    queue(database, executor, workload)
    job_id = run(database)
    stored = Event()

    def end() -> None:
        with database() as session:
            job = jobs.lock(session, job_id)
            if jobs.record_report(job, JobState.SUCCESS, 1, NOW, exit_code=0, log_length=9) is Verdict.STORED:
                job.log_complete = True
        stored.set()

    with database() as session:
        executor.queue_workload(workload, session)
        thread = Thread(target=end)
        thread.start()
    thread.join(20)
    assert stored.is_set()
    with database() as session:
        job = session.get(Job, job_id)
        assert (job.state, job.exit_code, job.log_complete) == (JobState.QUEUED, None, False)
