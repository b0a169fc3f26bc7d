"""Tasks of a silent worker that has promised to have stopped them by now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from airflow.utils.state import TaskInstanceState
from airflow_rows import put_task_instance, workload_of
from rows import claim, register

import edge_otel.executor as executor_module
from edge_otel.executor import EdgeExecutor
from edge_otel.models import jobs
from edge_otel.models.tables import Job, Worker
from edge_otel.state import JobState, WorkerState

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True),
    pytest.mark.usefixtures("no_task_instances"),
]

PROMISE = 600


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
def test_airflow_may_run_it_elsewhere_though_it_counts_as_running(database, monkeypatch, silent, facts, lost):
    monkeypatch.setattr(executor_module, "_CARE_INTERVAL", timedelta(0))
    executor = EdgeExecutor(parallelism=8)
    now = datetime.now(UTC)
    with database() as session:
        workload = workload_of(put_task_instance(session, "running"))
        executor.queue_workload(workload, session)
    with database() as session:
        worker = register(session, "w", now)
        job = claim(session, worker, now - timedelta(days=2))
        jobs.record_report(job, JobState.RUNNING, job.claim, now - timedelta(days=2))
        job_id = job.id
        worker.state = WorkerState.UNKNOWN
        worker.last_heartbeat = now - timedelta(seconds=silent)
        worker.sysinfo = {**worker.sysinfo, **facts}
    executor.sync()
    states = [state for state, _ in executor.get_event_buffer().values()]
    assert states == [TaskInstanceState.FAILED if lost else TaskInstanceState.RUNNING]
    with database() as session:
        job = session.get(Job, job_id)
        assert (job.state == JobState.LOST) is lost
        assert not lost or "has stopped the task by now" in job.error
        assert session.get(Worker, "w") is not None
