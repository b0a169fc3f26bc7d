"""What the executor does about what nobody reports, and what its loop costs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from airflow import settings
from airflow.utils.state import CallbackState, TaskInstanceState
from airflow_rows import callback_workload, put_task_instance, task_workload, workload_of
from rows import claim, queue_job, register
from served import registration
from sqlalchemy import event, func, insert, select

import edge_otel.executor as executor_module
from edge_otel.executor import EdgeExecutor
from edge_otel.models import jobs, logs, upkeep, wishes
from edge_otel.models.tables import Job, Worker
from edge_otel.reconcile import RETURNS_WITHIN
from edge_otel.state import GONE, JobState, WorkerState

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True),
    pytest.mark.usefixtures("no_task_instances"),
]

LONG_AGO = timedelta(hours=2)
RETAINED = 20_000


@pytest.fixture
def executor(database, monkeypatch):
    """An executor that takes care in every loop."""
    monkeypatch.setattr(executor_module, "_CARE_INTERVAL", timedelta(0))
    return EdgeExecutor(parallelism=8)


def start(database, executor, workload, *, worker_state=WorkerState.RUNNING, ago=LONG_AGO):
    """Let worker ``w`` have begun this workload some time ago, and be in this state now."""
    then = datetime.now(UTC) - ago
    with database() as session:
        executor.queue_workload(workload, session)
    with database() as session:
        worker = session.get(Worker, "w") or register(session, "w", datetime.now(UTC))
        job = claim(session, worker, then)
        jobs.record_report(job, JobState.RUNNING, job.claim, then)
        worker.state = worker_state
        if worker_state in GONE:
            worker.last_heartbeat = worker.state_since = then
        return job.id


@pytest.mark.parametrize(
    ("task_state", "expected"),
    [
        ("success", TaskInstanceState.SUCCESS),
        ("skipped", TaskInstanceState.SUCCESS),
        ("deferred", TaskInstanceState.SUCCESS),
        ("up_for_retry", TaskInstanceState.FAILED),
        ("failed", TaskInstanceState.FAILED),
        ("queued", TaskInstanceState.FAILED),
        ("running", None),
    ],
)
@pytest.mark.parametrize("worker_state", [WorkerState.UNKNOWN, WorkerState.OFFLINE_MAINTENANCE])
def test_a_dead_workers_task_ends_as_airflow_knows_it(executor, database, task_state, expected, worker_state):
    with database() as session:
        ti = put_task_instance(session, task_state)
    job_id = start(database, executor, workload_of(ti), worker_state=worker_state)
    executor.sync()
    states = [state for state, _ in executor.get_event_buffer().values()]
    assert states == [expected or TaskInstanceState.RUNNING]
    with database() as session:
        job = session.get(Job, job_id)
        assert (job.ended_at is None) == (expected is None)
        assert expected is None or f"Airflow says: {task_state}" in job.error


def test_a_dead_workers_task_that_airflow_has_no_more_is_lost(executor, database):
    workload = task_workload()
    job_id = start(database, executor, workload, worker_state=WorkerState.UNKNOWN)
    executor.sync()
    with database() as session:
        assert session.get(Job, job_id).state == JobState.LOST
    assert executor.slots_occupied == 0


def test_a_worker_that_was_removed_counts_as_dead(executor, database):
    callback = callback_workload()
    start(database, executor, callback, worker_state=WorkerState.OFFLINE)
    with database() as session:
        wishes.remove(session, "w", datetime.now(UTC))
    executor.sync()
    assert [state for state, _ in executor.get_event_buffer().values()] == [CallbackState.FAILED]


def test_a_silent_worker_is_expired_at_once_and_its_callback_lost_when_it_does_not_come_back(executor, database):
    start(database, executor, callback_workload())
    with database() as session:
        session.get(Worker, "w").last_heartbeat = datetime.now(UTC) - LONG_AGO
    executor.sync()
    with database() as session:
        gone = session.get(Worker, "w")
        assert gone.state == WorkerState.UNKNOWN
        # As if that had been some minutes ago.
        gone.state_since -= RETURNS_WITHIN
    assert executor.slots_occupied == 1
    executor.sync()
    assert executor.slots_occupied == 0


def test_a_callback_is_lost_when_its_worker_comes_back_without_it_and_a_task_is_not(executor, database, api, token):
    api.call("POST", "/v1/worker/w", token, json=registration(jobs=[]))
    with database() as session:
        ti = put_task_instance(session, "running")
    task = start(database, executor, workload_of(ti))
    callback, kept = (start(database, executor, callback_workload()) for _ in range(2))
    known = [{"id": kept, "claim": 1, "slots": 1}]
    answer = api.call("POST", "/v1/worker/w", token, json=registration("running", jobs=known, session="s2"))
    assert answer.status_code == 200, answer.text
    executor.sync()
    with database() as session:
        assert [session.get(Job, job).state for job in (task, callback, kept)] == ["running", "lost", "running"]
        assert session.get(Job, callback).error.startswith("The edge worker w came back without this job")
    said = [state for state, _ in executor.get_event_buffer().values()]
    assert sorted(said) == [CallbackState.FAILED, CallbackState.RUNNING, TaskInstanceState.RUNNING]


def test_a_daemon_that_only_connects_again_has_lost_nothing(executor, database, api, token):
    """While it polled and its way to the channel was being opened, it may have taken what its words lack."""
    api.call("POST", "/v1/worker/w", token, json=registration(jobs=[]))
    callback = start(database, executor, callback_workload())
    answer = api.call("POST", "/v1/worker/w", token, json=registration("running", jobs=[]))
    assert answer.status_code == 200, answer.text
    with database() as session:
        assert session.get(Job, callback).state == JobState.RUNNING


def test_after_an_outage_of_the_centre_itself_workers_come_back_with_their_jobs(executor, database):
    with database() as session:
        ti = put_task_instance(session, "queued")
    job_id = start(database, executor, workload_of(ti))
    with database() as session:
        session.get(Worker, "w").last_heartbeat = datetime.now(UTC) - LONG_AGO
    executor.sync()
    with database() as session:
        assert session.get(Worker, "w").state == WorkerState.UNKNOWN
        assert session.get(Job, job_id).state == JobState.RUNNING
        register(session, "w", datetime.now(UTC))
    executor.sync()
    with database() as session:
        assert session.get(Job, job_id).state == JobState.RUNNING


def test_a_worker_that_is_there_reports_its_own_jobs(executor, database):
    with database() as session:
        ti = put_task_instance(session, "success", end_date=datetime.now(UTC))
    job_id = start(database, executor, workload_of(ti))
    executor.sync()
    with database() as session:
        assert session.get(Job, job_id).state == JobState.RUNNING


def test_a_report_that_never_comes_is_replaced_by_airflows_word(executor, database):
    with database() as session:
        ti = put_task_instance(session, "success", end_date=datetime.now(UTC) - LONG_AGO)
    start(database, executor, workload_of(ti))
    executor.sync()
    assert [state for state, _ in executor.get_event_buffer().values()] == [TaskInstanceState.SUCCESS]


def test_the_late_report_of_a_worker_that_was_given_up_changes_nothing(executor, database):
    job_id = start(database, executor, task_workload(), worker_state=WorkerState.UNKNOWN)
    executor.sync()
    with database() as session:
        jobs.record_report(jobs.lock(session, job_id), JobState.SUCCESS, 1, datetime.now(UTC))
        assert session.get(Job, job_id).state == JobState.LOST


def test_an_offer_that_nobody_accepts_is_offered_again(executor, database):
    workload = task_workload()
    with database() as session:
        executor.queue_workload(workload, session)
    then = datetime.now(UTC) - LONG_AGO
    with database() as session:
        claim(session, register(session, "w", datetime.now(UTC)), then)
    executor.sync()
    with database() as session:
        again = claim(session, session.get(Worker, "w"), datetime.now(UTC))
        assert (again.id, again.claim) == (str(workload.ti.id), 2)
    assert list(executor.queued_tasks) == [workload.key]


def test_another_teams_offers_and_jobs_are_left_to_its_executor(executor, database):
    then = datetime.now(UTC) - LONG_AGO
    with database() as session:
        worker = register(session, "r", then, team="red")
        offered = queue_job(session, then, team="red")
        claim(session, worker, then)
        ended = queue_job(session, then, team="red", log_path=None)
        job = claim(session, worker, then)
        jobs.record_report(job, JobState.SUCCESS, 1, then)
    executor.sync()
    with database() as session:
        assert session.get(Job, offered).state == JobState.ASSIGNED
        assert session.get(Job, ended) is not None
    EdgeExecutor(parallelism=8, team_name="red").sync()
    with database() as session:
        assert session.get(Job, offered).state == JobState.QUEUED
        assert session.get(Job, ended) is None


def test_old_rows_are_purged_a_bounded_number_at_a_time(executor, database, monkeypatch):
    monkeypatch.setattr(upkeep, "PURGE_LIMIT", 3)
    then = datetime.now(UTC) - LONG_AGO
    with database() as session:
        worker = register(session, "w", datetime.now(UTC))
        for end in (JobState.SUCCESS, JobState.FAILED) * 2:
            queue_job(session, then, log_path=None)
            job = claim(session, worker, then)
            jobs.record_report(job, JobState.RUNNING, 1, then)
            jobs.record_report(job, end, 1, then)
        waiting = queue_job(session, then)
    left = []
    for _ in range(2):
        executor.sync()
        with database() as session:
            left.append(session.scalar(select(func.count()).select_from(Job)))
    assert left == [2, 1]
    with database() as session:
        assert session.get(Job, waiting) is not None


def test_a_deferred_tasks_row_and_log_are_kept_for_its_return(executor, database):
    then = datetime.now(UTC) - LONG_AGO
    with database() as session:
        worker = register(session, "w", datetime.now(UTC))
        ids = []
        for state in ("deferred", "up_for_reschedule", "success"):
            ti = put_task_instance(session, state)
            ids.append(queue_job(session, then, id=str(ti.id), log_path=None))
            job = claim(session, worker, then)
            logs.append(session, job, 1, 0, b"text")
            jobs.record_report(job, JobState.RUNNING, 1, then)
            jobs.record_report(job, JobState.SUCCESS, 1, then)
    executor.sync()
    with database() as session:
        kept = [session.get(Job, job_id) is not None for job_id in ids]
        assert kept == [True, True, False]
        queue_job(session, then, id=ids[0], log_path=None)
        assert claim(session, session.get(Worker, "w"), then).claim == 2
        assert b"".join(logs.read(session, ids[0])) == b"text"


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Count the statements, and where the driver knows it the rows that they return."""
    counts = {"statements": 0, "rows": 0}

    def after(_connection, cursor, statement, *_args):
        counts["statements"] += 1
        if statement.startswith("SELECT"):
            counts["rows"] += max(cursor.rowcount, 0)

    event.listen(settings.engine, "after_cursor_execute", after)
    try:
        yield counts
    finally:
        event.remove(settings.engine, "after_cursor_execute", after)


def retain(database, number):
    """Insert jobs that ended a minute ago and are kept a while."""
    then = datetime.now(UTC) - timedelta(minutes=1)
    same = {
        "kind": "task",
        "holders": {},
        "dag_id": "dag",
        "task_id": "task",
        "run_id": "run",
        "map_index": -1,
        "try_number": 1,
        "queue": "default",
        "slots": 1,
        "urgency": 1,
        "priority": 1,
        "workload": "{}" * 1000,
        "carrier": {},
        "state": JobState.SUCCESS,
        "claim": 1,
        "worker": "w",
        "queued_at": then,
        "changed_at": then,
        "ended_at": then,
    }
    with database() as session:
        for _ in range(0, number, 2000):
            session.execute(insert(Job), [{"id": str(uuid4()), **same} for _ in range(2000)])


def test_a_loop_reads_what_changed_and_not_what_is_kept(database, monkeypatch):
    # What is done now and then must not fall into what is counted here.
    for rare in ("_CARE_INTERVAL", "_RECONCILE_INTERVAL"):
        monkeypatch.setattr(executor_module, rare, timedelta(hours=1))
    executor = EdgeExecutor(parallelism=100)
    with database() as session:
        register(session, "w", datetime.now(UTC))
        for n in range(20):
            executor.queue_workload(task_workload(task_id=f"t{n}"), session)
    executor.sync()
    with counted() as few:
        executor.sync()
    retain(database, RETAINED)
    with database() as session:
        job = claim(session, session.get(Worker, "w"), datetime.now(UTC))
        jobs.record_report(job, JobState.RUNNING, 1, datetime.now(UTC))
    with counted() as many:
        executor.sync()
    assert few["statements"] == many["statements"] <= 3
    assert many["rows"] <= 20
    assert len(executor.get_event_buffer()) == 1
    began = time.process_time()
    for _ in range(20):
        executor.sync()
    assert (time.process_time() - began) / 20 < 0.02, "seconds of processor time per loop"


def test_taking_care_costs_the_same_whatever_is_kept(database, executor):
    with counted() as few:
        executor.sync()
    retain(database, RETAINED)
    with counted() as many:
        executor.sync()
    assert few["statements"] == many["statements"]
    assert many["rows"] == few["rows"]


def test_the_slow_look_reads_every_job_of_this_scheduler_in_a_few_statements(database, monkeypatch):
    monkeypatch.setattr(executor_module, "_RECONCILE_INTERVAL", timedelta(0))
    executor = EdgeExecutor(parallelism=2000)
    with database() as session:
        for n in range(1200):
            executor.queue_workload(task_workload(id=UUID(int=n), task_id=f"t{n}"), session)
    with counted() as counts:
        executor.sync()
    assert counts["statements"] < 15
    assert len(executor.queued_tasks) == 1200
