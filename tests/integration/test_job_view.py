"""Jobs as people look at them: filters, pages, and which of them somebody may read."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow_rows import CARRIER
from rows import NOW, claim, queue_job, register

from edge_otel.models import job_view, jobs
from edge_otel.models.job_view import JobFilter
from edge_otel.state import JobState

SECOND = timedelta(seconds=1)
SECRET = "eyJ.workload.token"


def found(session, *, dags=None, teams=(), offset=0, limit=50, **wanted):
    """Return the task ids on a page, and the page."""
    page = job_view.page(session, JobFilter(**wanted), NOW, dags=dags, teams=teams, offset=offset, limit=limit)
    assert SECRET not in page.model_dump_json()
    return [job.task_id for job in page.jobs], page.total


def put(session, task, second=0, **fields):
    """Queue a job whose workload holds a token."""
    workload = f'{{"type": "ExecuteTask", "token": "{SECRET}"}}'
    return queue_job(session, NOW + second * SECOND, task_id=task, workload=workload, **fields)


def test_the_last_queued_are_first_and_a_page_is_cut_from_all(database):
    with database() as session:
        for number in range(7):
            put(session, f"t{number}", number)
        assert found(session) == ([f"t{number}" for number in reversed(range(7))], 7)
        assert found(session, offset=2, limit=3) == (["t4", "t3", "t2"], 7)
        assert found(session, offset=100) == ([], 7)


@pytest.mark.parametrize(
    ("wanted", "tasks"),
    [
        ({"dag_id": "SALES"}, ["d", "a"]),
        ({"dag_id": "s_"}, ["d"]),
        ({"dag_id": "%"}, ["c"]),
        ({"dag_id": "100%"}, ["c"]),
        ({"dag_id": "\\"}, ["b"]),
        ({"dag_id": "/"}, ["c"]),
        ({"dag_id": "'; --"}, []),
        ({"task_id": "A"}, ["a"]),
        ({"run_id": "manual__2026-01-01T00:00:00+00:00"}, ["b"]),
        ({"queue": "gpu"}, ["c", "b"]),
        ({"queue": "gpu-"}, ["c"]),
        ({"worker": "W"}, ["a"]),
        ({"queue_is": "GPU"}, ["b"]),
        ({"queue_is": "gpu-"}, []),
        ({"worker_is": "w"}, ["a"]),
        ({"worker_is": "%"}, []),
        ({"team": "red"}, ["d"]),
        ({"team": "re"}, []),
        ({"worker_is": "w", "team": "red"}, []),
        ({"queue_is": "default", "teamless": True}, ["a"]),
        ({"queue_is": "q" * 256}, []),
        ({"states": ["assigned"]}, ["a"]),
        ({"states": ["queued", "assigned"], "queue": "default"}, ["d", "a"]),
        ({"states": ["lost"]}, []),
    ],
)
def test_a_filter_takes_texts_as_they_are_in_upper_or_lower_case(database, wanted, tasks):
    with database() as session:
        put(session, "a", 0, dag_id="Sales")
        claim(session, register(session, "w", NOW), NOW)
        put(session, "b", 1, dag_id="back\\slash", run_id="manual__2026-01-01T00:00:00+00:00", queue="GPU")
        put(session, "c", 2, dag_id="a/100%", queue="gpu-2")
        put(session, "d", 3, dag_id="sales_b", team="red")
        assert found(session, **wanted) == (tasks, len(tasks))
        page = job_view.page(session, JobFilter(states=["lost"], queue="default"), NOW)
        assert (page.total, page.states) == (0, {"assigned": 1, "queued": 1})


def test_only_tasks_of_readable_dags_are_there_and_other_jobs_by_their_team(database):
    with database() as session:
        worker = register(session, "w", NOW)
        named = {"dag_id": "ExecuteCallback", "kind": "callback"}
        put(session, "a", 0, dag_id="a")
        put(session, "b", 1, dag_id="b")
        put(session, "callback", 2, **named)
        put(session, "red", 3, team="red", **named)
        put(session, "sly", 4, dag_id="ExecuteCallback")
        put(session, "test", 5, dag_id="TestConnection", kind="connection_test")
        assert found(session)[1] == 6
        assert found(session, dags=["a"]) == (["test", "callback", "a"], 3)
        assert found(session, dags={"a", "b"}, teams=["red", "blue"]) == (["test", "red", "callback", "b", "a"], 5)
        assert found(session, dags=set()) == (["test", "callback"], 2)
        assert found(session, dags=["a"], dag_id="b") == (["callback"], 1)
        for _ in range(5):
            claim(session, worker, NOW)
        session.flush()
        shown = [job.task_id for job in job_view.of_worker(session, "w", dags=["b"])]
        assert sorted(shown) == ["b", "callback", "test"]
        assert len(job_view.of_worker(session, "w")) == 5
        assert len(job_view.of_worker(session, "w", limit=2)) == 2


def test_a_job_is_told_with_its_trace_and_how_it_ended_and_never_with_its_workload(database):
    with database() as session:
        worker = register(session, "w", NOW)
        job_id = put(session, "t", carrier=CARRIER, priority=7, slots=2)
        job = claim(session, worker, NOW)
        jobs.record_report(job, JobState.RUNNING, 1, NOW + SECOND)
        jobs.record_report(job, JobState.FAILED, 1, NOW + 2 * SECOND, exit_code=-9, error="killed")
        put(session, "untraced", -1, carrier={"traceparent": "00-junk"})
        session.flush()
        ended, untraced = job_view.page(session, JobFilter(), NOW).jobs
        assert (ended.id, ended.state, ended.exit_code, ended.error) == (job_id, "failed", -9, "killed")
        assert (ended.queued_at, ended.accepted_at, ended.ended_at) == (NOW, NOW + SECOND, NOW + 2 * SECOND)
        assert (ended.priority, ended.slots, ended.worker, ended.kind) == (7, 2, "w", "task")
        assert ended.trace_id == CARRIER["traceparent"].split("-")[1]
        assert untraced.trace_id is None
        assert not {"workload", "carrier"} & ended.model_dump().keys()
