"""Several schedulers: adoption, teams, revocation, and clocks that differ."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from airflow.utils.state import TaskInstanceState
from airflow_rows import put_task_instance, task_workload, workload_of
from rows import claim
from scheduler import events, queue, run

import edge_otel.executor as executor_module
from edge_otel.executor import EdgeExecutor
from edge_otel.models import jobs
from edge_otel.models.tables import Worker
from edge_otel.state import JobState

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True),
    pytest.mark.usefixtures("no_task_instances"),
]

SECOND = timedelta(seconds=1)


def test_a_revoked_task_is_no_job_and_nothing_is_told(executor, database, worker):
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
        assert jobs.lock(session, job_id) is None


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
