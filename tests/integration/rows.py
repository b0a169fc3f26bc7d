"""Rows for the tests, made by the code that makes them in production."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from edge_otel.models import jobs, workers
from edge_otel.models.session import Session
from edge_otel.models.tables import Job, Worker
from edge_otel.state import JobState, WorkerState
from edge_otel.wire import WorkerReport

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def queue_job(session: Session, now: datetime, **fields: Any) -> str:
    """Queue a job and return its id."""
    values: dict[str, Any] = {
        "id": str(uuid4()),
        "kind": "task",
        "dag_id": "dag",
        "task_id": "task",
        "run_id": "run",
        "map_index": -1,
        "try_number": 1,
        "queue": "default",
        "slots": 1,
        "urgency": 1,
        "priority": 1,
        "team": None,
        "workload": '{"type": "ExecuteTask"}',
        "carrier": {},
        "log_path": "dag_id=dag/run_id=run/task_id=task/attempt=1.log",
    }
    new = jobs.NewJob(**values | fields)
    jobs.queue(session, new, now)
    session.flush()
    return new.id


def report(state: WorkerState = WorkerState.STARTING, **fields: Any) -> WorkerReport:
    """Return what a worker of ours reports."""
    facts = {"airflow_version": "3.3.2", "edge_provider_version": "0.1.0", "concurrency": 4}
    return WorkerReport.model_validate({"state": state, "sysinfo": facts, "session": "s1", **fields})


def register(session: Session, name: str, now: datetime, /, **fields: Any) -> Worker:
    """Register a worker and return it."""
    options: dict[str, Any] = {"token_id": "t1", "team": None, "heartbeat_interval": 30.0, "trace_id": None}
    given = {key: fields.pop(key) for key in list(fields) if key in (*options, "connection")}
    worker = workers.register(session, name, report(**fields), now, **options | given)
    session.flush()
    return worker


def claim(session: Session, worker: Worker, now: datetime, **fields: Any) -> Job | None:
    """Claim the worker's next job."""
    options: dict[str, Any] = {
        "queues": None,
        "free_slots": 4,
        "kinds": ("task", "callback", "connection_test"),
        "offer_timeout": timedelta(seconds=30),
    }
    return jobs.claim_next(session, worker, now=now, **options | fields)


def state_of(session: Session, job_id: str) -> JobState:
    """Return the job's state as stored."""
    session.expire_all()
    job = session.get(Job, job_id)
    assert job is not None
    return JobState(job.state)


def beat(session, now, /, state=WorkerState.IDLE, **fields):
    """Let worker ``w`` report."""
    worker = workers.heartbeat(session, "w", report(state, **fields), now, token_id="t1", trace_id=None)
    session.flush()
    return worker


def register_as(session, state, name="w", **fields):
    """Return a worker that is in this state already."""
    worker = register(session, name, NOW, **fields)
    worker.state = state
    session.flush()
    return worker


def ask(session, request, *args, **kwargs):
    """Let an administrator ask something of worker ``w``."""
    answer = request(session, "w", *args, **kwargs)
    session.flush()
    return answer


def history(session, name="w"):
    """Return the worker's states in order, with their causes."""
    session.flush()
    return [(e.from_state, e.to_state, e.cause) for e in reversed(workers.events_of(session, name))]
