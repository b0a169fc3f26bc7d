"""The spans of executor and API as a collector gets them: in one trace with Airflow's own, and in nobody's way."""

from __future__ import annotations

import socket
import statistics
import time
from datetime import UTC, datetime, timedelta

import pytest
from airflow_rows import CARRIER, callback_workload, connection_workload, put_task_instance, task_workload, workload_of
from channels import queue, state, stored_as, wait_for
from rows import claim, register
from served import registration, wish
from sqlalchemy import text

import edge_otel.executor as executor_module
from demo.otlp import Store
from edge_otel.executor import EdgeExecutor
from edge_otel.messages import Decline
from edge_otel.models import jobs, workers
from edge_otel.models.tables import Job, Worker
from edge_otel.state import JobState, WorkerState
from edge_otel.telemetry import central, context, names, spans

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True),
    pytest.mark.usefixtures("no_task_instances"),
]

_, TRACE, PARENT, _ = CARRIER["traceparent"].split("-")
UNSAMPLED = {"traceparent": CARRIER["traceparent"][:-2] + "00"}


@pytest.fixture
def store(monkeypatch):
    """What the spans are sent to, soon after they are recorded."""
    store = Store()
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("AIRFLOW__EDGE__OTLP_ENDPOINT", store.endpoint)
    yield store
    store.stop()


@pytest.fixture
def executor(store, database, monkeypatch):
    """An executor that takes care in every loop, and sends its spans."""
    monkeypatch.setattr(executor_module, "_CARE_INTERVAL", timedelta(0))
    executor = EdgeExecutor(parallelism=8)
    executor.start()
    yield executor
    executor.end()


@pytest.fixture
def api(store, start_api, monkeypatch):
    """The API with its hub, which sends its spans."""
    monkeypatch.setattr("edge_otel.api.pulse.LOOK_INTERVAL", 0.5)
    return start_api(channels=True, otlp_endpoint=store.endpoint)


@pytest.fixture
def far(api, connect, token):
    """Worker ``w``, connected."""
    return connect(to=api, token=token)


def received(store, number=1):
    """Return the spans once there are so many; more than that are a failure."""
    wait_for(lambda: len(store.spans()) >= number, f"{number} spans")
    found = store.spans()
    assert len(found) == number, [span.name for span in found]
    return sorted(found, key=lambda span: span.start)


def check(span, kind, name, *, parent=PARENT, trace=TRACE, without=(), **values):
    """Check a span against the catalogue, and these attributes."""
    assert (span.name, span.kind, span.service) == (name, kind.kind, kind.service)
    assert (span.trace_id, span.parent_id) == (trace, parent)
    assert span.attributes.keys() == {*kind.attributes} - {*without}
    assert {key: span.attributes[key] for key in values} == {key: str(value) for key, value in values.items()}
    assert span.failed == (names.ERROR_TYPE in span.attributes)


def about(job_id, operation, **more):
    """Return the attributes that every span of a job of ``queue`` or ``task_workload`` has."""
    values = {
        names.MESSAGING_SYSTEM: "airflow",
        names.OPERATION_NAME: operation,
        names.QUEUE: "default",
        names.JOB_ID: job_id,
        names.DAG_ID: "dag",
        names.TASK_ID: "task",
        names.RUN_ID: "run",
        names.MAP_INDEX: -1,
        names.TRY_NUMBER: 1,
    }
    return values | more


def nanoseconds(when):
    """Return a time as OTLP has it, in the precision of the database."""
    return round(when.timestamp() * 1e6) * 1000


def close_to(when):
    """Return what a received time is compared with."""
    return pytest.approx(nanoseconds(when), abs=2000)


def test_what_is_sent_is_part_of_the_tasks_trace(executor, store, database):
    workload = task_workload(map_index=3, try_number=2, queue="gpu")
    before = datetime.now(UTC)
    with database() as session:
        executor.queue_workload(workload, session)
        executor.queue_workload(task_workload(context_carrier=UNSAMPLED), session)
        executor.queue_workload(task_workload(context_carrier=None), session)
        executor.queue_workload(connection_workload(), session)
    [span] = received(store)
    mine = {names.MAP_INDEX: 3, names.TRY_NUMBER: 2, names.QUEUE: "gpu", names.OPERATION_TYPE: "send"}
    check(span, names.SEND, "send gpu", **about(workload.ti.id, "send") | mine)
    assert nanoseconds(before) <= span.start <= span.end <= nanoseconds(datetime.now(UTC))
    assert "workload-token" not in str(span)


def test_a_callback_is_part_of_the_trace_of_its_dag_run(executor, store, database):
    workload = callback_workload()
    with database() as session:
        executor.queue_workload(workload, session)
    [span] = received(store)
    check(span, names.SEND, "send default", **{names.JOB_ID: workload.callback.id, names.DAG_ID: "ExecuteCallback"})


def test_a_job_that_was_offered_has_waited(api, far, store, database):
    far.beat("idle")
    job_id = queue(database, carrier=CARRIER)
    queue(database, carrier=UNSAMPLED)
    far.hear("job")
    far.hear("job")
    with database() as session:
        job = session.get(Job, job_id)
        queued_at, assigned_at = job.queued_at, job.assigned_at
    [span] = received(store)
    duration = (assigned_at - queued_at).total_seconds()
    mine = {names.WORKER_NAME: "w", names.JOB_CLAIM: 1}
    check(span, names.QUEUED, "queue default", **about(job_id, "queue") | mine)
    assert float(span.attributes[names.JOB_QUEUE_DURATION]) == pytest.approx(duration, abs=1e-5)
    assert (span.start, span.end) == (close_to(queued_at), close_to(assigned_at))


def test_a_job_that_was_declined_waits_again_under_the_next_claim(far, store, database):
    far.beat("idle")
    job_id = queue(database, carrier=CARRIER)
    offer = far.hear("job")
    far.say(Decline(id=offer.task_instance_id, claim=offer.claim))
    wait_for(lambda: state(database, job_id) is JobState.QUEUED, "the offer to return")
    far.beat("idle")
    far.hear("job")
    first, second = sorted(received(store, 2), key=lambda span: span.end)
    for span, number in ((first, 1), (second, 2)):
        check(span, names.QUEUED, "queue default", **about(job_id, "queue") | {names.JOB_CLAIM: number})
    assert first.span_id != second.span_id
    assert first.end < second.end


def test_a_job_that_a_polling_worker_fetches_has_waited(api, store, database, token):
    assert api.call("POST", "/v1/worker/w", token, json=registration()).ok
    job_id = queue(database, carrier=CARRIER)
    job = api.call("POST", "/v1/jobs/fetch/w", token, json=wish()).json()
    assert job["task_instance_id"] == job_id
    assert api.call("POST", "/v1/jobs/fetch/w", token, json=wish()).json() is None
    [span] = received(store)
    mine = {names.WORKER_NAME: "w", names.JOB_CLAIM: 1}
    check(span, names.QUEUED, "queue default", **about(job_id, "queue") | mine)
    with database() as session:
        row = session.get(Job, job_id)
        assert (span.start, span.end) == (close_to(row.queued_at), close_to(row.assigned_at))


@pytest.mark.parametrize(
    ("worker_state", "task_state", "reason", "outcome"),
    [
        (WorkerState.UNKNOWN, "failed", "worker_gone", "lost"),
        (WorkerState.RUNNING, "success", "not_reported", "success"),
    ],
)
def test_a_job_that_nobody_reports_ends_as_an_orphan(
    executor, store, database, worker_state, task_state, reason, outcome
):
    then = datetime.now(UTC) - timedelta(hours=2)
    with database() as session:
        ti = put_task_instance(session, task_state, end_date=then)
    workload = workload_of(ti)
    with database() as session:
        executor.queue_workload(workload, session)
    with database() as session:
        worker = register(session, "w", datetime.now(UTC))
        job = claim(session, worker, then)
        jobs.record_report(job, JobState.RUNNING, 1, then)
        worker.state = worker_state
    for _ in range(3):
        executor.sync()
    orphan, _ = received(store, 2)
    mine = {
        names.TASK_ID: ti.task_id,
        names.WORKER_NAME: "w",
        names.JOB_CLAIM: 1,
        names.JOB_OUTCOME: outcome,
        names.ERROR_TYPE: reason,
        names.ORPHAN_REASON: reason,
    }
    check(orphan, names.ORPHAN, "orphan default", **about(ti.id, "orphan") | mine)
    assert orphan.start == close_to(then)


def test_a_heartbeat_whose_context_is_sampled_is_recorded_until_it_is_stored(far, store, database):
    unsampled, plain, changed = context.new_root(), context.new_root(True), context.new_root(True)
    far.beat("idle", **unsampled)
    far.beat("idle", traceparent="nonsense")
    far.beat("idle", jobs_active=2, **plain)
    # At once: it is stored together with the one before.
    far.beat("running", jobs_active=3, **changed)
    heard = received(store, 2)
    sent = (("idle", 2, plain), ("running", 3, changed))
    for span, (worker_state, active, parent) in zip(heard, sent, strict=True):
        trace, above = context.ids(parent)
        mine = {names.WORKER_NAME: "w", names.WORKER_STATE: worker_state, names.JOBS_ACTIVE: active}
        check(span, names.HEARTBEAT_SERVER, "heartbeat", trace=trace, parent=above, without=[names.ERROR_TYPE], **mine)
        assert span.end > span.start
    stored_as(database, "w", "running")
    with database() as session:
        assert workers.events_of(session, "w")[0].trace_id == context.trace_id(changed)


def test_a_heartbeat_that_is_not_stored_says_why(far, store, database):
    far.beat("idle")
    stored_as(database, "w", "idle")
    with database() as session:
        session.execute(text("ALTER TABLE edge_otel_worker RENAME TO edge_otel_away"))
    try:
        far.beat("running", jobs_active=1, **context.new_root(True))
        [failed] = received(store)
    finally:
        with database() as session:
            session.execute(text("ALTER TABLE edge_otel_away RENAME TO edge_otel_worker"))
    assert failed.attributes[names.ERROR_TYPE] in ("ProgrammingError", "OperationalError")
    stored_as(database, "w", "running")
    with database() as session:
        session.delete(session.get(Worker, "w"))
    far.beat("idle", **context.new_root(True))
    _, unknown = received(store, 2)
    assert unknown.attributes[names.ERROR_TYPE] == "WorkerNotFound"
    assert unknown.failed


def test_the_context_of_a_registration_is_kept_with_the_event(connect, api, token, database):
    parent = context.new_root()
    connect(to=api, token=token, **parent)
    with database() as session:
        assert workers.events_of(session, "w")[0].trace_id == context.trace_id(parent)


def test_a_polling_workers_heartbeat_is_recorded_likewise(api, store, database, token):
    assert api.call("POST", "/v1/worker/w", token, json=registration()).ok

    def beat(parent, **fields):
        body = registration("running", jobs_active=2, **fields)
        return api.call("PATCH", "/v1/worker/w", token, json=body, headers=parent).status_code

    parent, refused = context.new_root(True), context.new_root(True)
    assert beat(context.new_root()) == 200
    assert beat({"traceparent": "nonsense"}) == 200
    assert beat(parent | {"tracestate": "a=b"}) == 200
    assert beat(refused, session="s2") == 409
    heard = received(store, 2)
    for span, carrier, without in ((heard[0], parent, [names.ERROR_TYPE]), (heard[1], refused, [])):
        trace, above = context.ids(carrier)
        mine = {names.WORKER_NAME: "w", names.WORKER_STATE: "running", names.JOBS_ACTIVE: 2}
        check(span, names.HEARTBEAT_SERVER, "heartbeat", trace=trace, parent=above, without=without, **mine)
    assert heard[1].attributes[names.ERROR_TYPE] == "SessionReplaced"


def test_a_collector_that_never_answers_slows_nothing(database, monkeypatch):
    # Small, so that few jobs fill it.
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "32")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    monkeypatch.setattr(spans, "CLOSE_WITHIN", 0.2)
    monkeypatch.setattr(central, "EXPORT_WITHIN", 1.0)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as black_hole:
        monkeypatch.setenv("AIRFLOW__EDGE__OTLP_ENDPOINT", f"http://127.0.0.1:{black_hole.getsockname()[1]}")
        executor = EdgeExecutor(parallelism=8)
        executor.start()
        took = []
        for _ in range(100):
            began = time.monotonic()
            with database() as session:
                executor.queue_workload(task_workload(), session)
            executor.sync()
            took.append(time.monotonic() - began)
        black_hole.settimeout(5)
        began = time.monotonic()
        with black_hole.accept()[0]:
            executor.end()
    assert statistics.median(took) < central.EXPORT_WITHIN, "had each of them waited"
    assert time.monotonic() - began < 2.0


def test_an_environment_that_the_sdk_refuses_costs_the_spans_and_nothing_else(database, start_api, monkeypatch, caplog):
    monkeypatch.setenv("AIRFLOW__EDGE__OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")
    executor = EdgeExecutor(parallelism=8)
    executor.start()
    with database() as session:
        executor.queue_workload(task_workload(), session)
    executor.sync()
    executor.end()
    assert caplog.text.count("Spans cannot be exported.") == 1
    assert start_api(channels=True, otlp_endpoint="http://127.0.0.1:9").call("GET", "/readyz").ok
