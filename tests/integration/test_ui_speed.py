"""The fleet page's API with 2,000 workers, 20,000 jobs and 1,000 DAGs on PostgreSQL: what each answer asks of the
database and how long it takes (``-s`` prints it), and that an action on all workers leaves room for heartbeats."""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from uuid import uuid4

import pytest
from airflow_rows import task_workload
from airflow_site import put_dag
from rows import report
from sqlalchemy import event, insert, text

from edge_otel.models import fleet
from edge_otel.models.tables import Job, Token, Worker, WorkerEvent

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True, scope="module")

WORKERS, JOBS, DAGS = 2_000, 20_000, 1_000
NAMES = [f"site{number // 20}-{number % 20}" for number in range(WORKERS)]
STATES = ("running",) * 6 + ("idle",) * 3 + ("maintenance mode", "offline", "unknown")
JOB_STATES = ("success",) * 12 + ("running",) * 4 + ("assigned", "queued", "queued", "failed")


@pytest.fixture
def ann(site, database):
    """An administrator; workers that say what ours say, with an hour of load, ten events and a token each."""
    now = datetime.now(UTC)
    with database() as session:
        session.execute(insert(Worker), [worker(number, now) for number in range(WORKERS)])
        one = {"from_state": "idle", "to_state": "running", "cause": "heartbeat", "at": now}
        session.execute(insert(WorkerEvent), [{"worker": name, **one} for name in NAMES for _ in range(10)])
        lifetime = {"created_at": now, "expires_at": now + timedelta(days=365)}
        secret = {"secret_sha256": "0" * 64}
        session.execute(
            insert(Token),
            [{"id": f"{n:016x}", "worker": name, **secret, **lifetime} for n, name in enumerate(NAMES)],
        )
        session.execute(text("ANALYZE"))
    return site.person("ann")


@pytest.fixture
def jobs(ann, database):
    """Jobs with workloads of the usual length, of DAGs that exist."""
    now = datetime.now(UTC)
    workload = task_workload().model_dump_json()
    with database() as session:
        for number in range(DAGS):
            put_dag(session, f"dag-{number}")
        session.execute(insert(Job), [job(number, workload, now) for number in range(JOBS)])
        session.execute(text("ANALYZE"))


def worker(number, now):
    """Return the row of one worker."""
    facts = report().sysinfo | {"cpu_percent": number % 101, "memory_percent": 41.2, "disk_percent": 73.1, "load1": 0.7}
    facts |= {
        "os": "Linux-6.1",
        "load5": 0.9,
        "clock_skew": 0.01,
        "memory_total": 2**34,
        "log_backlog": 0,
        "status": 20,
    }
    return {
        "name": NAMES[number],
        "state": STATES[number % len(STATES)],
        "state_since": now - timedelta(seconds=number),
        "state_cause": "heartbeat",
        "queues": ["default", f"site{number // 20}"],
        "slots": 8,
        "sysinfo": facts,
        "load_history": {"at": int(now.timestamp()), "cpu": list(range(60)), "memory": [41] * 60},
        "token_id": f"{number:016x}",
        "connection": "c",
        "heartbeat_interval": 40.0,
        "first_online": now,
        "last_heartbeat": now - timedelta(seconds=number % 40),
        "log_end": {},
    }


def job(number, workload, now):
    """Return the row of one job."""
    state = JOB_STATES[number % len(JOB_STATES)]
    at = now - timedelta(seconds=number)
    return {
        "id": str(uuid4()),
        "kind": "task",
        "dag_id": f"dag-{number % DAGS}",
        "task_id": f"task-{number % 7}",
        "run_id": f"scheduled__{number // 50}",
        "map_index": -1,
        "try_number": 1,
        "queue": f"site{number % 100}",
        "slots": 1,
        "urgency": 1,
        "priority": 1,
        "workload": workload,
        "carrier": {"traceparent": f"00-{number + 1:032x}-{1:016x}-01"},
        "state": state,
        "claim": 1,
        "worker": None if state == "queued" else f"site{number % 100}-{number % 20}",
        "holders": {},
        "queued_at": at,
        "changed_at": at,
        "log_ends": {},
    }


QUESTIONS = {
    "context": {},
    "workers": {},
    "workers, by name": {"name": "site7*"},
    "workers, by part": {"search": "7-1"},
    "workers, by state and queue": {"state": "idle", "queue": "site4*"},
    "workers, by CPU": {"sort": "cpu", "descending": True},
    "workers, by jobs": {"sort": "jobs", "descending": True},
    "workers, the last page": {"offset": 1950},
    "workers, 500 of them": {"limit": 500},
    "workers/site7-3": {},
    "queues": {},
    "queues, by part": {"search": "SITE7"},
    "jobs": {},
    "jobs, by DAG": {"dag_id": "AG-77"},
    "jobs, by state and worker": {"state": "running", "worker": "site4"},
    "jobs, by nothing that is there": {"run_id": "nothing"},
    "jobs, deep in": {"offset": 19_950},
    "tokens": {},
    "tokens, by part": {"search": "site7"},
}


def test_no_list_asks_the_database_often(ann, jobs, database):
    statements: list[str] = []

    def note(connection, cursor, statement, *rest):
        if "edge_otel" in statement:
            statements.append(statement)

    with database() as session:
        engine = session.get_bind().engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        for question, params in QUESTIONS.items():
            path = question.partition(",")[0]
            ann.get(path, **params)
            statements.clear()
            took = []
            for _ in range(5):
                began = time.perf_counter()
                ann.get(path, **params)
                took.append((time.perf_counter() - began) * 1000)
            asked = len(statements) / 5
            median = statistics.median(took)
            print(f"{question:32} {min(took):6.1f} ms, median {median:6.1f}, {asked:g} statements")
            assert asked <= 6, question
    finally:
        event.remove(engine, "before_cursor_execute", note)


def test_an_action_on_all_workers_leaves_room_for_their_heartbeats(ann, database):
    beat = fleet.Beat("c", report("running"), datetime.now(UTC), None)
    over = Event()
    waits: list[float] = []
    skipped: list[int] = []

    def beat_on() -> None:
        turn = 0
        while not over.is_set():
            began = time.perf_counter()
            with database() as session:
                some = NAMES[50 * turn % WORKERS :][:50]
                skipped.append(len(fleet.record_beats(session, dict.fromkeys(some, beat)).not_written))
            waits.append(time.perf_counter() - began)
            turn += 1

    thread = Thread(target=beat_on)
    thread.start()
    try:
        began = time.perf_counter()
        did = ann.act("maintenance_on", "*", comment="all")
        took = time.perf_counter() - began
    finally:
        over.set()
        thread.join()
    print(f"{WORKERS} workers in {took:.2f} s; {len(waits)} batches of 50 heartbeats meanwhile, the longest", end=" ")
    print(f"{max(waits) * 1000:.0f} ms; {sum(skipped)} heartbeats were left for the next batch")
    assert len(did) == WORKERS
    assert all(done for done, _ in did.values())
    assert sum(skipped) < 50 * len(waits) / 2
