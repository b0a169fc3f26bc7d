"""What shipping task logs achieves: one task with a very long log, and many that log at once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

from demo.cluster import Cluster
from demo.edge import EdgeWorker, create_token
from demo.process import Process
from tests.bench.findings import Findings, progress
from tests.bench.footprint import ROOT
from tests.bench.sides import OURS, Side, connect, edge3_site
from tests.bench.sizes import Sizes
from tests.bench.spread import percentile

DAG = "bench_single"
WORKER = "bench-logs"
STUB = ROOT / "tests" / "integration" / "worker" / "stub_python.py"
"""Stands for Airflow in the task's process, and writes what it is told."""
WITHIN = 300.0
"""Seconds until a log is stored."""
WRITE = """
sys.path.insert(0, {root!r})
from tests.bench.log_text import block
data = block()
folder = Path(os.environ["AIRFLOW__LOGGING__BASE_LOG_FOLDER"]) / workload["log_path"]
folder.parent.mkdir(parents=True, exist_ok=True)
while time.time() < {begin!r}:
    time.sleep(0.01)
with folder.open("ab", buffering=0) as handle:
    began = time.time()
    for number in range({pieces}):
        handle.write(data[:{piece}])
        time.sleep(max(0.0, began + (number + 1) * {every} - time.time()) if {every} else 0)
Path({times!r}, str(os.getpid())).write_text(json.dumps([workload["log_path"], began, time.time()]))
"""
_JOBS = """SELECT log_path, extract(epoch FROM ended_at)::float, state, log_ends::jsonb->claim::text->>1 IS NOT NULL
    FROM edge_otel_job WHERE id IN %s"""
_STORED = "SELECT coalesce(sum(length), 0) FROM edge_otel_log_chunk WHERE job_id IN %s"
_TASKS = "SELECT dag_id, task_id, run_id, map_index, try_number, id::text FROM task_instance WHERE dag_id = %s"


def measure(side: Side, cluster: Cluster, database: str, sizes: Sizes, findings: Findings) -> None:
    """Measure one side."""
    api = psutil.Process(cluster.processes["api-server"].pid)
    before = peak(api)
    measure_one = measure_ours if side is OURS else measure_edge3
    measure_one(cluster, database, sizes, findings)
    findings.figures["logs_api_rss_mb"] = peak(api)
    findings.details["logs_api_rss_before_mb"] = before


def measure_ours(cluster: Cluster, database: str, sizes: Sizes, findings: Findings) -> None:
    """Let a real daemon ship what stand-ins for tasks write."""
    site = EdgeWorker(
        cluster, WORKER, token=create_token(cluster, WORKER), queues="logs", concurrency=sizes.log_tasks + 1
    )
    python = site.folder / "stub-python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S -P {STUB} "$@"\n')
    python.chmod(0o755)
    daemon = site.start("--task-python", str(python), "--launch", "interpreter")
    cluster.wait(lambda: site.status().get("transport"), "the worker to be connected", 60)
    one = Writing(cluster, database, daemon, 1, sizes.log_mb, 1024, 0.01)
    findings.details["logs_one"] = one.run(begin=0.0)
    burst = Writing(cluster, database, daemon, sizes.log_tasks, sizes.log_burst_mb, 1024, 0.0)
    findings.details["logs_burst"] = burst.run(begin=time.time() + 3 + sizes.log_tasks * 0.25)
    many = Writing(cluster, database, daemon, sizes.log_tasks, round(sizes.log_seconds * 10), 102.4, 0.1)
    # All begin at once, when the last of them is up.
    findings.details["logs_many"] = many.run(begin=time.time() + 3 + sizes.log_tasks * 0.25)
    findings.figures |= {
        "logs_one_mb_s": findings.details["logs_one"]["mb_s"],
        "logs_many_mb_s": findings.details["logs_burst"]["mb_s"],
        "logs_end_s": findings.details["logs_one"]["end_max_s"],
        "logs_lag_s": findings.details["logs_many"]["lag_s"],
        "logs_many_end_s": findings.details["logs_many"]["end_max_s"],
        "logs_daemon_rss_mb": peak(psutil.Process(daemon.pid)),
    }
    quiet(cluster, database, daemon, sizes, findings)


class Writing:
    """Tasks that write ``pieces`` of ``kib`` each, one ``every`` so many seconds, 0 for as fast as they can."""

    def __init__(
        self, cluster: Cluster, database: str, daemon: Process, tasks: int, pieces: int, kib: float, every: float
    ) -> None:
        self._cluster = cluster
        self._database = database
        self._processes = {
            "daemon_cpu_s": psutil.Process(daemon.pid),
            "api_cpu_s": serving(cluster),
        }
        self._tasks = tasks
        self._pieces = pieces
        self._piece = round(kib * 1024)
        self._every = every

    def run(self, begin: float) -> dict[str, Any]:
        """Return what was achieved."""
        times = self._cluster.folder / f"times-{self._tasks}-{self._every}"
        times.mkdir()
        code = WRITE.format(
            root=str(ROOT), begin=begin, pieces=self._pieces, piece=self._piece, every=self._every, times=str(times)
        )
        ids = queue(self._cluster, self._tasks, code)
        total = self._tasks * self._pieces * self._piece
        with closing(connect(self._database)) as connection, connection.cursor() as cursor:
            before = self._cpu(cursor)

            def stored() -> bool:
                cursor.execute(_STORED, (ids,))
                return int(cursor.fetchone()[0]) >= total

            self._cluster.wait(stored, "the logs to be stored", WITHIN)
            ended = time.time()
            cpu = {name: seconds - before[name] for name, seconds in self._cpu(cursor).items()}

            def reported() -> list[Any]:
                cursor.execute(_JOBS, (ids,))
                rows = cursor.fetchall()
                return rows if all(row[1] for row in rows) else []

            self._cluster.wait(reported, "the jobs to end", WITHIN)
            rows = reported()
        wrote = {path: (began, end) for path, began, end in (json.loads(f.read_text()) for f in times.iterdir())}
        delays = [at - wrote[path][1] for path, at, _, _ in rows]
        began, wrote_until = min(began for began, _ in wrote.values()), max(end for _, end in wrote.values())
        return {
            "mb": total / 1e6,
            "written_s": wrote_until - began,
            "stored_s": ended - began,
            "lag_s": ended - wrote_until,
            "mb_s": total / 1e6 / (ended - began),
            "end_p50_s": percentile(delays, 0.5),
            "end_max_s": max(delays),
            "states": sorted({state for _, _, state, _ in rows}),
            "checksums": sum(known for _, _, _, known in rows),
            **cpu,
        }

    def _cpu(self, cursor: Any) -> dict[str, float]:
        used = {name: cpu_time(process) for name, process in self._processes.items()}
        cursor.execute("SELECT pg_backend_pid()")
        server = psutil.Process(cursor.fetchone()[0]).parent()
        assert server is not None
        backends = sum(cpu_time(backend) for backend in server.children())
        # With those that have ended.
        return {**used, "postgres_cpu_s": sum(server.cpu_times()[:4]) + backends}


def quiet(cluster: Cluster, database: str, daemon: Process, sizes: Sizes, findings: Findings) -> None:
    """Read the daemon's CPU time while many jobs log nothing."""
    go = cluster.folder / "go"
    ids = queue(cluster, sizes.log_tasks, f"log(b'begun'); wait_for_file({str(go)!r})")
    with closing(connect(database)) as connection, connection.cursor() as cursor:

        def begun() -> bool:
            cursor.execute(_STORED, (ids,))
            return int(cursor.fetchone()[0]) == 5 * len(ids)

        cluster.wait(begun, "the quiet jobs to begin", WITHIN)
    process = psutil.Process(daemon.pid)
    time.sleep(2)
    before = cpu_time(process)
    time.sleep(sizes.log_seconds)
    findings.figures["logs_quiet_percent"] = (cpu_time(process) - before) / sizes.log_seconds * 100
    go.touch()


def queue(cluster: Cluster, tasks: int, code: str) -> tuple[str, ...]:
    """Queue jobs that run this code, and return their ids."""
    return tuple(told(cluster.env, "log_jobs", str(tasks), code))


def measure_edge3(cluster: Cluster, database: str, sizes: Sizes, findings: Findings) -> None:
    """Let edge3's own code push files that are written already: in pieces as long as it reads them at once, its time
    grows with their square."""
    cluster.start_airflow("dag-processor", "dag-processor")
    cluster.wait(lambda: cluster.api.dag_exists(DAG), "the DAG", 120)
    cluster.end("dag-processor")
    for _ in range(sizes.log_tasks + 1):
        cluster.api.trigger(DAG)
    with closing(connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(_TASKS, (DAG,))
        tasks = cursor.fetchall()
    env = edge3_site(cluster)
    one, each = sizes.log_mb_edge3, sizes.log_burst_mb
    seconds = told(env, "edge3_push", json.dumps(tasks[:1]), str(one))
    findings.figures["logs_one_mb_s"] = one * 1.048576 / seconds
    seconds = told(env, "edge3_push", json.dumps(tasks[1:]), str(each))
    findings.figures["logs_many_mb_s"] = sizes.log_tasks * each * 1.048576 / seconds


def told(env: dict[str, str], module: str, *arguments: str) -> Any:
    """Run a module of the benchmark to its end, and return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.bench.{module}", *arguments],
        env={**env, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def serving(cluster: Cluster) -> psutil.Process:
    """Return the API server's process that answers: the largest of its tree."""
    api = psutil.Process(cluster.processes["api-server"].pid)
    return max((api, *api.children(recursive=True)), key=lambda process: process.memory_info().rss)


def cpu_time(process: psutil.Process) -> float:
    """Return the seconds of CPU time that a process has used, without its children."""
    return float(sum(process.cpu_times()[:2]))


def peak(process: psutil.Process) -> float:
    """Return the highest resident memory, in MB, that any process of a tree ever had."""
    found = []
    for one in (process, *process.children(recursive=True)):
        lines = Path(f"/proc/{one.pid}/status").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")]
    progress(f"peak memory {max(found):.0f} MB")
    return max(found)
