"""The executor as a scheduler uses it: what it queues, tells, counts and forgets."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import pytest
from airflow.utils.state import CallbackState, TaskInstanceState
from airflow_rows import (
    CARRIER,
    callback_workload,
    connection_workload,
    put_task_instance,
    task_workload,
    workload_of,
)
from rows import claim
from scheduler import events, queue, run
from sqlalchemy import text

import edge_otel.executor as executor_module
from edge_otel.errors import NotMigrated
from edge_otel.models import jobs, logs
from edge_otel.models.database import EdgeDBManager
from edge_otel.models.tables import Job, Worker
from edge_otel.state import JobState

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True),
    pytest.mark.usefixtures("no_task_instances"),
]

SECOND = timedelta(seconds=1)


def test_a_loop_is_timed_for_airflows_own_metrics(executor, monkeypatch):
    timed = []
    monkeypatch.setattr(executor_module.Stats, "timer", lambda name, **_: timed.append(name) or nullcontext())
    executor.sync()
    assert timed == ["edge_executor.sync.duration"]


def test_it_does_not_start_without_its_tables(executor, database):
    executor.start()
    table = EdgeDBManager.version_table_name
    with database() as session:
        version = session.scalar(text(f"SELECT version_num FROM {table}"))
        session.execute(text(f"DELETE FROM {table}"))
    try:
        with pytest.raises(NotMigrated, match=r"Run `airflow db migrate`"):
            executor.start()
    finally:
        with database() as session:
            session.execute(text(f"INSERT INTO {table} VALUES (:version)"), {"version": version})


def test_a_queued_task_is_a_row_with_all_a_worker_needs(executor, database):
    workload = task_workload(queue="gpu", pool_slots=2, priority_weight=7, map_index=3)
    queue(database, executor, workload)
    with database() as session:
        job = session.get(Job, str(workload.ti.id))
        assert (job.kind, job.queue, job.slots, job.priority, job.urgency) == ("task", "gpu", 2, 7, 1)
        assert (job.dag_id, job.task_id, job.run_id, job.map_index, job.try_number) == ("dag", "task", "run", 3, 1)
        assert (job.state, job.team, job.carrier, job.log_path) == ("queued", None, CARRIER, workload.log_path)
        assert type(workload).model_validate_json(job.workload) == workload


def test_what_the_scheduler_rolls_back_is_no_job_and_is_forgotten(executor, database, monkeypatch):
    workload = task_workload()
    with pytest.raises(ZeroDivisionError), database() as session:
        executor.queue_workload(workload, session)
        raise ZeroDivisionError
    with database() as session:
        assert session.get(Job, str(workload.ti.id)) is None
    executor.sync()
    assert workload.key in executor.queued_tasks, "the scheduler may be about to commit"
    monkeypatch.setattr(executor_module, "_COMMIT_PATIENCE", timedelta(0))
    monkeypatch.setattr(executor_module, "_RECONCILE_INTERVAL", timedelta(0))
    executor.sync()
    assert (executor.slots_occupied, events(executor)) == (0, {})


def test_the_gauges_are_true_from_queue_to_end(executor, database, worker):
    queue(database, executor, *(task_workload(task_id=f"t{n}") for n in range(3)), callback_workload())
    assert (len(executor.queued_tasks), len(executor.queued_callbacks), len(executor.running)) == (3, 1, 0)
    assert executor.slots_available == 4
    run(database)
    run(database)
    executor.sync()
    assert (len(executor.queued_tasks), len(executor.queued_callbacks), len(executor.running)) == (2, 0, 2)
    assert executor.slots_available == 4
    run(database, JobState.SUCCESS)
    executor.sync()
    assert (len(executor.queued_tasks), len(executor.running), executor.slots_available) == (1, 2, 5)


def test_a_job_that_a_worker_was_only_offered_is_still_queued(executor, database, worker):
    workload = task_workload()
    queue(database, executor, workload)
    with database() as session:
        claim(session, session.get(Worker, "w"), datetime.now(UTC))
    executor.heartbeat()
    assert list(executor.queued_tasks) == [workload.key]
    assert events(executor) == {}


@pytest.mark.parametrize(
    ("end", "expected"),
    [(JobState.SUCCESS, TaskInstanceState.SUCCESS), (JobState.FAILED, TaskInstanceState.FAILED)],
)
def test_the_scheduler_is_told_when_a_task_runs_and_how_it_ended(executor, database, worker, end, expected):
    workload = task_workload()
    queue(database, executor, workload)
    job_id = run(database)
    executor.sync()
    assert executor.get_event_buffer() == {workload.key: (TaskInstanceState.RUNNING, "w")}
    executor.sync()
    assert events(executor) == {}, "once"
    with database() as session:
        jobs.record_report(jobs.lock(session, job_id), end, 1, datetime.now(UTC), error="why")
    executor.sync()
    ((state, info),) = executor.get_event_buffer().values()
    assert (state, info) == (expected, "why" if end is JobState.FAILED else None)
    assert executor.slots_occupied == 0


def test_a_task_that_ends_between_two_looks_is_told_as_ended(executor, database, worker):
    workload = task_workload()
    queue(database, executor, workload)
    run(database, JobState.SUCCESS)
    executor.sync()
    assert events(executor) == {workload.key: TaskInstanceState.SUCCESS}


def test_callbacks_and_connection_tests_go_under_their_own_keys(executor, database, worker):
    callback, connection = callback_workload(), connection_workload(queue="gpu")
    queue(database, executor, callback, connection)
    assert (list(executor.queued_callbacks), list(executor.queued_connection_tests)) == (
        [callback.key],
        [connection.key],
    )
    with database() as session:
        rows = {job.kind: job for job in (session.get(Job, callback.callback.id), session.get(Job, connection.key.id))}
        assert (rows["callback"].dag_id, rows["callback"].queue, rows["callback"].carrier) == (
            "ExecuteCallback",
            "default",
            CARRIER,
        )
        assert (rows["connection_test"].dag_id, rows["connection_test"].queue) == ("TestConnection", "gpu")
    assert {run(database, JobState.SUCCESS), run(database, JobState.FAILED)} == {
        callback.callback.id,
        connection.key.id,
    }
    executor.sync()
    told = events(executor)
    assert told.keys() == {callback.key, connection.key}
    assert told[callback.key] in (CallbackState.SUCCESS, CallbackState.FAILED)
    assert {str(state.value) for state in told.values()} == {"success", "failed"}
    assert executor.slots_occupied == 0


def test_a_connection_test_that_is_given_up_is_given_to_no_worker_any_more(executor, database):
    connection = connection_workload()
    queue(database, executor, connection)
    executor.fail_connection_test(connection.key)
    with database() as session:
        assert session.get(Job, connection.key.id).state == JobState.LOST
    assert executor.slots_occupied == 0


def test_a_task_that_was_deferred_is_queued_and_told_again(executor, database, worker):
    workload = task_workload()
    for _ in range(2):
        queue(database, executor, workload)
        run(database, JobState.SUCCESS)
        executor.sync()
        assert events(executor) == {workload.key: TaskInstanceState.SUCCESS}


def test_the_log_of_a_running_task_is_read_from_the_store(executor, database, worker):
    with database() as session:
        ti = put_task_instance(session, "running")
    queue(database, executor, workload_of(ti))
    job_id = run(database)
    with database() as session:
        logs.append(session, jobs.lock(session, job_id), 1, 0, b"first\nsecond \xff\nthi")
    sources, text = executor.get_task_log(ti, 1)
    assert (sources, "".join(text)) == (["Edge worker w, live"], "first\nsecond \\xff\n")
    assert executor.get_task_log(ti, 2) == ([], []), "another try"
