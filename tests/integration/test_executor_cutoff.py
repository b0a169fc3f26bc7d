"""Tasks of a silent worker that has promised to have stopped them by now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from airflow.utils.state import TaskInstanceState
from airflow_rows import put_task_instance, workload_of
from rows import claim, register

import edge_otel.executor as executor_module
from edge_otel.errors import JobsUnsettled
from edge_otel.executor import EdgeExecutor
from edge_otel.models import jobs, wishes
from edge_otel.models.tables import Job, Worker
from edge_otel.reconcile import RETURNS_WITHIN
from edge_otel.state import JobState, WorkerState

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True),
    pytest.mark.usefixtures("no_task_instances"),
]

PROMISE = 600


@pytest.fixture
def executor(database, monkeypatch):
    """An executor that takes care in every loop."""
    monkeypatch.setattr(executor_module, "_CARE_INTERVAL", timedelta(0))
    return EdgeExecutor(parallelism=8)


@pytest.mark.parametrize(
    ("silent", "facts", "lost"),
    [
        (PROMISE + 70, {"jobs_stopped_after": PROMISE}, True),
        (PROMISE + 50, {"jobs_stopped_after": PROMISE}, False),
        (86_400, {}, False),
        (86_400, {"jobs_stopped_after": "soon"}, False),
    ],
    ids=["over", "not yet", "keeps its jobs", "rubbish"],
)
def test_airflow_may_run_it_elsewhere_though_it_counts_as_running(database, executor, silent, facts, lost):
    job_id = start(database, executor, WorkerState.UNKNOWN, silent, facts)
    executor.sync()
    states = [state for state, _ in executor.get_event_buffer().values()]
    assert states == [TaskInstanceState.FAILED if lost else TaskInstanceState.RUNNING]
    with database() as session:
        job = session.get(Job, job_id)
        assert (job.state == JobState.LOST) is lost
        assert not lost or "has stopped the task by now" in job.error
        assert session.get(Worker, "w") is not None


def test_a_worker_that_the_api_has_heard_while_the_database_was_away_keeps_its_task(database, executor):
    job_id = start(database, executor, WorkerState.RUNNING, 86_400, {"jobs_stopped_after": PROMISE})
    executor.sync()
    with database() as session:
        assert session.get(Worker, "w").state == WorkerState.UNKNOWN
        assert session.get(Job, job_id).state == JobState.RUNNING
        register(session, "w", datetime.now(UTC))
    executor.sync()
    with database() as session:
        assert session.get(Job, job_id).state == JobState.RUNNING


@pytest.mark.parametrize(
    ("silent", "within"),
    [(60, "within 10 min"), (PROMISE + 50, "within 1 min"), (PROMISE + 70, "as soon as it runs")],
    ids=["before", "almost", "over"],
)
def test_a_worker_that_has_promised_to_stop_its_task_is_removed_once_that_is_settled(
    database, executor, silent, within
):
    job_id = start(database, executor, WorkerState.UNKNOWN, silent, {"jobs_stopped_after": PROMISE})
    for dry_run in (True, False):
        with database() as session, pytest.raises(JobsUnsettled) as refused:
            wishes.remove(session, "w", datetime.now(UTC), dry_run=dry_run)
        assert "'w' has running jobs that are not settled yet (1)." in refused.value.detail
        assert within in refused.value.detail
    with database() as session:
        session.get(Worker, "w").last_heartbeat -= timedelta(seconds=PROMISE)
        session.get(Worker, "w").state_since -= timedelta(seconds=PROMISE)
    executor.sync()
    with database() as session:
        wishes.remove(session, "w", datetime.now(UTC))
        assert session.get(Job, job_id).state == JobState.LOST
    assert [state for state, _ in executor.get_event_buffer().values()] == [TaskInstanceState.FAILED]


def test_a_worker_that_keeps_its_jobs_is_removed_once_it_may_not_come_back_with_them_any_more(database, executor):
    start(database, executor, WorkerState.UNKNOWN, RETURNS_WITHIN.total_seconds() - 10, {})
    with database() as session, pytest.raises(JobsUnsettled, match="within 1 min"):
        wishes.remove(session, "w", datetime.now(UTC))
    with database() as session:
        # Airflow alone decides on its task from now on.
        wishes.remove(session, "w", datetime.now(UTC) + timedelta(seconds=11))


def start(database, executor, state, silent, facts):
    """Let worker ``w``, which is in this state and was last heard so many seconds ago, have begun a task long ago."""
    now = datetime.now(UTC)
    with database() as session:
        workload = workload_of(put_task_instance(session, "running"))
        executor.queue_workload(workload, session)
    with database() as session:
        worker = register(session, "w", now)
        job = claim(session, worker, now - timedelta(days=2))
        jobs.record_report(job, JobState.RUNNING, job.claim, now - timedelta(days=2))
        worker.state = state
        worker.last_heartbeat = worker.state_since = now - timedelta(seconds=silent)
        worker.sysinfo = {**worker.sysinfo, **facts}
        return job.id
