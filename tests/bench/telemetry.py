"""What telemetry costs: the same run without it, with it, and while the collector is in each kind of trouble."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import psutil

from demo.cluster import Cluster
from demo.edge import EdgeWorker, create_token
from demo.process import Process, free_port
from tests.bench.faulty import BEHAVIOURS, FaultyCollector
from tests.bench.findings import Findings, progress
from tests.bench.mapped import DAG, run_mapped
from tests.bench.sides import CONCURRENCY, WORKER, connect
from tests.bench.sizes import Sizes

OFF = "off"
OPTIONS = {"AIRFLOW__EDGE__TELEMETRY_INTERVAL": "5", "AIRFLOW__EDGE__OTLP_TASK_LOGS": "False"}
"""Metrics six times as often as by default. Task logs as records are no telemetry of the system."""

Runs = dict[str, list[float]]


class Pair:
    """Two whole Airflows that run beside each other all the time, so that both have the same machine."""

    def __init__(self, database: str, folder: Path, sizes: Sizes) -> None:
        self._sizes = sizes
        self.collector = FaultyCollector()
        self.collector.behave("healthy")
        self._databases = {OFF: database, "on": self._second(database)}
        self.clusters = {
            name: Cluster(
                folder / name,
                database=self._databases[name],
                port=free_port(),
                dags=Path(__file__).with_name("dags"),
                otlp=endpoint,
                options=OPTIONS if endpoint else None,
            )
            for name, endpoint in ((OFF, None), ("on", self.collector.endpoint))
        }
        self.workers: dict[str, Process] = {}
        self._outbox = Path()

    @staticmethod
    def _second(database: str) -> str:
        with closing(connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE telemetry_on")
        return f"{database.rpartition('/')[0]}/telemetry_on"

    def start(self) -> None:
        """Bring both up, with a warm worker each."""
        for name, cluster in self.clusters.items():
            cluster.migrate()
            cluster.start_api_server()
            for component in ("scheduler", "dag-processor"):
                cluster.start_airflow(component, component)
            cluster.wait_for_api()
            worker = EdgeWorker(cluster, WORKER, token=create_token(cluster, WORKER), concurrency=CONCURRENCY)
            disabled = {"OTEL_SDK_DISABLED": "true"} if name == OFF else {}
            self.workers[name] = worker.start(env=disabled)
            if name == "on":
                self._outbox = worker.state_folder / "outbox"
            cluster.wait(lambda c=cluster: c.api.dag_exists(DAG), "the DAG", 120)
            run_mapped(cluster, 8)

    def stop(self) -> None:
        """End everything."""
        for cluster in self.clusters.values():
            cluster.stop()
        self.collector.behave("dead")

    def measure(self, findings: Findings) -> None:
        """Run the same tasks in every state in turn, several times."""
        runs, tasks = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
        for turn in range(self._sizes.telemetry_rounds):
            # What the last round's troubles left would be delivered at the cost of this round's.
            self.collector.behave("healthy")
            self.clusters["on"].wait(lambda: not any(self._outbox.glob("*.gz")), "the backlog to leave", 120)
            for state in (OFF, *BEHAVIOURS):
                name = OFF if state == OFF else "on"
                if name == "on":
                    self.collector.behave(state)
                run_id, seconds = run_mapped(self.clusters[name], self._sizes.mapped)
                runs[state].append(seconds)
                tasks[state] += self._task_seconds(name, run_id)
                progress(f"telemetry: round {turn + 1}, {state}: {seconds:.1f} s")
        findings.details["telemetry"] = {
            state: {"run_s": runs[state], "task_p50_s": statistics.median(tasks[state])} for state in runs
        }
        findings.details["telemetry_bytes"] = self.collector.taken
        findings.figures |= figures(runs, tasks)
        findings.figures["telemetry_rss_mb"] = psutil.Process(self.workers["on"].pid).memory_info().rss / 1e6

    def _task_seconds(self, name: str, run_id: str) -> Iterable[float]:
        """Return how long each job held its slot, with the start and the end of its process."""
        query = "SELECT extract(epoch FROM ended_at - assigned_at)::float FROM edge_otel_job WHERE run_id = %s"
        with closing(connect(self._databases[name])) as connection, connection.cursor() as cursor:
            cursor.execute(query, (run_id,))
            return [seconds for (seconds,) in cursor.fetchall() if seconds is not None]


def figures(runs: Runs, tasks: Runs) -> dict[str, float]:
    """Return by how many percent medians differ."""

    def more(found: Runs, state: str, base: str) -> float:
        return (statistics.median(found[state]) / statistics.median(found[base]) - 1) * 100

    faults = [state for state in tasks if state not in (OFF, "healthy")]
    return {
        "telemetry_run_percent": more(runs, "healthy", OFF),
        "telemetry_task_percent": more(tasks, "healthy", OFF),
        "telemetry_fault_percent": max(more(tasks, state, "healthy") for state in faults),
    }


def main() -> None:
    """Measure, and print what was found as JSON on the last line."""
    parser = ArgumentParser()
    parser.add_argument("database")
    parser.add_argument("postgres_log", type=Path)
    parser.add_argument("sizes", type=json.loads, help="JSON")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="edge-bench-"))
    findings = Findings("ours")
    pair = Pair(arguments.database, place, Sizes(**arguments.sizes))
    try:
        pair.start()
        findings.attempt("telemetry", pair.measure)
    finally:
        pair.stop()
        if not findings.failed:
            shutil.rmtree(place, ignore_errors=True)
        print(findings.as_json())


if __name__ == "__main__":
    main()
