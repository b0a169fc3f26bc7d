"""What differs between the two sides: the executor, the tables, and how a worker is started."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from demo.cluster import Cluster
from demo.edge import EdgeWorker, create_token
from demo.environment import site
from demo.process import Process
from tests.bench.statements import BENCH

CONCURRENCY = 8
WORKER = "bench"
WORKLOAD = json.dumps(
    {
        "token": "x" * 400,
        "dag_rel_path": "bench.py",
        "bundle_info": {"name": "dags-folder", "version": None},
        "log_path": "dag_id=d/run_id=r/task_id=t<n>/attempt=1.log",
        "ti": {
            "id": "<id>",
            "dag_version_id": "00000000-0000-0000-0000-000000000000",
            "task_id": "t<n>",
            "dag_id": "d",
            "run_id": "r",
            "try_number": 1,
            "map_index": -1,
            "pool_slots": 1,
            "queue": "default",
            "priority_weight": 1,
            "parent_context_carrier": {},
            "context_carrier": {},
        },
        "sentry_integration": "",
        "type": "ExecuteTask",
    }
)
"""As Airflow queues a task, with a token of usual length. Both sides parse it."""


@dataclass(frozen=True)
class Side:
    """One of the two providers."""

    executor: str
    worker_table: str
    job_table: str
    finished_job: str
    """SQL that inserts ``%(rows)s`` finished jobs that ended evenly over the last ``%(spread)s`` seconds."""
    queued_job: str
    """SQL that inserts ``%(rows)s`` queued jobs with the workload ``%(text)s``."""
    workers: str
    """SQL that inserts ``%(rows)s`` workers, ``site-1`` and so on, two of three of which are running."""


OURS = Side(
    "edge_otel.executor.EdgeExecutor",
    "edge_otel_worker",
    "edge_otel_job",
    """INSERT INTO edge_otel_job (id, kind, dag_id, task_id, run_id, map_index, try_number, queue, slots, urgency,
           priority, workload, carrier, holders, revoked, log_ends, log_path, state, claim, worker, queued_at,
           changed_at, log_complete)
       SELECT gen_random_uuid()::text, 'task', 'd', 't' || n, 'r', -1, 1, 'default', 1, 1, 1, %(text)s, '{}', '{}',
           0, '{}', 'x', 'success', 1, 'w', now(), now() - n * %(spread)s * interval '1 second' / %(rows)s, true
       FROM generate_series(1, %(rows)s) n""",
    """INSERT INTO edge_otel_job (id, kind, dag_id, task_id, run_id, map_index, try_number, queue, slots, urgency,
           priority, workload, carrier, holders, revoked, log_ends, state, claim, queued_at, changed_at, log_complete)
       SELECT id, 'task', 'd', 't' || n, 'r', -1, 1, 'default', 1, 1, 1,
           replace(replace(%(text)s, '<id>', id), '<n>', n::text), '{}', '{}', 0, '{}', 'queued', 0, now(), now(), false
       FROM (SELECT gen_random_uuid()::text AS id, n FROM generate_series(1, %(rows)s) n) new""",
    """INSERT INTO edge_otel_worker (name, state, state_since, state_cause, queues, slots, jobs_active, sysinfo,
           load_history, log_end, heartbeat_interval, first_online, last_heartbeat)
       SELECT 'site-' || n, CASE WHEN mod(n, 3) > 0 THEN 'running' ELSE 'idle' END, now(), 'heartbeat',
           json_build_array('queue-' || mod(n, 40)), 8, 0, json_build_object('airflow_version', '3.3.2',
               'edge_provider_version', '0.1.0', 'concurrency', 8, 'cpu_percent', mod(n, 100), 'memory_percent', 40,
               'disk_percent', 50),
           json_build_object('at', extract(epoch FROM now())::int,
               'cpu', (SELECT json_agg(i) FROM generate_series(1, 60) i),
               'memory', (SELECT json_agg(40) FROM generate_series(1, 60) i)), '{}', 3600, now(), now()
       FROM generate_series(1, %(rows)s) n""",
)
EDGE3 = Side(
    "airflow.providers.edge3.executors.EdgeExecutor",
    "edge_worker",
    "edge_job",
    """INSERT INTO edge_job (dag_id, task_id, run_id, map_index, try_number, task_instance_id, state, queue,
           concurrency_slots, priority_weight, command, queued_dttm, edge_worker, last_update)
       SELECT 'd', 't' || n, 'r', -1, 1, gen_random_uuid()::text, 'success', 'default', 1, 1, %(text)s, now(), 'w',
           now() - n * %(spread)s * interval '1 second' / %(rows)s
       FROM generate_series(1, %(rows)s) n""",
    """INSERT INTO edge_job (dag_id, task_id, run_id, map_index, try_number, task_instance_id, state, queue,
           concurrency_slots, priority_weight, command, queued_dttm, last_update)
       SELECT 'd', 't' || n, 'r', -1, 1, id, 'queued', 'default', 1, 1,
           replace(replace(%(text)s, '<id>', id), '<n>', n::text), now(), now()
       FROM (SELECT gen_random_uuid()::text AS id, n FROM generate_series(1, %(rows)s) n) new""",
    """INSERT INTO edge_worker (worker_name, state, queues, first_online, last_update, jobs_active, sysinfo,
           concurrency)
       SELECT 'site-' || n, CASE WHEN mod(n, 3) > 0 THEN 'running' ELSE 'idle' END,
           '[' || quote_literal('queue-' || mod(n, 40)) || ']', now(), now(), 0,
           json_build_object('airflow_version', '3.3.2', 'edge_provider_version', '5.1.0', 'concurrency', 8,
               'free_concurrency', 8), 8
       FROM generate_series(1, %(rows)s) n""",
)
SIDES = {"ours": OURS, "edge3": EDGE3}


def worker_starter(side: Side, cluster: Cluster, concurrency: int = CONCURRENCY) -> Callable[[], Process]:
    """Return what starts the side's worker as its users do, with what it needs in place."""
    if side is OURS:
        return EdgeWorker(cluster, WORKER, token=create_token(cluster, WORKER), concurrency=concurrency).start
    env = edge3_site(cluster)
    command: list[str | Path] = [sys.executable, "-m", "airflow", "edge", "worker", "-q", "default"]
    return lambda: cluster.start_worker(WORKER, [*command, "-c", str(concurrency), "-H", WORKER], env)


def edge3_site(cluster: Cluster) -> dict[str, str]:
    """Return the environment of edge3's worker."""
    return site(cluster.base, home=cluster.folder / "site", dags=cluster.dags) | {
        "AIRFLOW__API_AUTH__JWT_SECRET": cluster.keys.jwt,
        "AIRFLOW__CORE__EXECUTOR": EDGE3.executor,
        "AIRFLOW__EDGE__API_URL": f"{cluster.edge_url}/v1/rpcapi",
    }


def create_group_token(cluster: Cluster) -> str:
    """Return a token for all simulated workers."""
    return create_token(cluster, f"{WORKER}-*")


def connect(url: str) -> psycopg2.extensions.connection:
    """Return a connection to the side's database that commits each statement."""
    connection = psycopg2.connect(url.replace("+psycopg2", ""), application_name=BENCH)
    connection.autocommit = True
    return connection


def registered(connection: psycopg2.extensions.connection, side: Side) -> bool:
    """Return whether the worker's row is there."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {side.worker_table}")
        return bool(cursor.fetchone()[0])


def empty(connection: psycopg2.extensions.connection, side: Side) -> None:
    """Delete every job and worker."""
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {side.job_table}")
        cursor.execute(f"DELETE FROM {side.worker_table}")
        cursor.execute(f"VACUUM ANALYZE {side.job_table}")


def insert_finished(connection: psycopg2.extensions.connection, side: Side, rows: int, spread: float) -> None:
    """Insert finished jobs that ended evenly over the last ``spread`` seconds."""
    text = json.dumps({"type": "ExecuteTask", "padding": "x" * 1300})
    with connection.cursor() as cursor:
        cursor.execute(side.finished_job, {"rows": rows, "spread": spread, "text": text})
        cursor.execute("ANALYZE")


def insert_workers(connection: psycopg2.extensions.connection, side: Side, rows: int) -> None:
    """Insert workers that have just been heard."""
    with connection.cursor() as cursor:
        cursor.execute(side.workers, {"rows": rows})
        cursor.execute("ANALYZE")


def insert_queued(connection: psycopg2.extensions.connection, side: Side, rows: int) -> None:
    """Insert jobs that wait for a worker of the default queue."""
    with connection.cursor() as cursor:
        cursor.execute(side.queued_job, {"rows": rows, "text": WORKLOAD})
        cursor.execute("ANALYZE")
