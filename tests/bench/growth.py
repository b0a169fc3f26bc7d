"""Lets a fleet grow on one API process inside Airflow's api-server, until something breaks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from demo.cluster import Cluster, healthy
from demo.process import free_port
from tests.bench.findings import Findings, progress
from tests.bench.fleet import Fleet, allow_many_files
from tests.bench.sides import connect, create_group_token
from tests.bench.simulated import Habits
from tests.bench.sizes import Sizes
from tests.bench.statements import BENCH, StatementLog

SETTLED = 5.0
"""Seconds after the last worker was welcomed at which measuring begins."""
ENDED_WITHIN = 60.0
"""Seconds after the last job was queued; what has not ended then is lost."""
BACK_WITHIN = 120.0
ASSIGNED_WITHIN = 1.0
"""Seconds that 99 of 100 jobs may wait for their worker; with more, the fleet is too large."""
OPTIONS = {
    "AIRFLOW__EDGE__HEARTBEAT_INTERVAL": "30",
    # The default would stretch the interval of a fleet of 2,000: what 30 s cost is the question.
    "AIRFLOW__EDGE__HEARTBEATS_PER_SECOND": "10000",
    "AIRFLOW__EDGE__CHANNEL_LIMIT": "100000",
}


@dataclass(frozen=True)
class Meter:
    """What an API process has used, and what the database was asked, up to a moment. Times are in seconds."""

    at: float
    cpu: float


class Growth:
    """One Airflow with an API server only, and the fleet on it."""

    def __init__(self, database: str, postgres_log: Path, folder: Path, sizes: Sizes) -> None:
        allow_many_files()
        self._sizes = sizes
        dags = Path(__file__).with_name("dags")
        port = free_port()
        self.cluster = Cluster(folder, database=database, port=port, dags=dags, otlp=None, options=OPTIONS)
        self._database = database
        self._connection = connect(database)
        self._statements = StatementLog(database, postgres_log)
        self._made: list[str] = []

    def stop(self) -> None:
        """End everything."""
        self._statements.close()
        self._connection.close()
        self.cluster.stop()

    def measure(self, findings: Findings) -> None:
        """Grow step by step; each step's findings are kept also when a later one breaks."""
        sizes = self._sizes
        self.cluster.migrate()
        self.cluster.start_api_server()
        self.cluster.wait_for_api()
        steps: list[dict[str, Any]] = []
        findings.details["fleet"] = steps
        habits = Habits(job_seconds=sizes.job_seconds)
        with Fleet(self.cluster.edge_url, create_group_token(self.cluster), habits) as fleet:
            for size in sizes.fleet:
                broke = self._step(fleet, size, steps)
                progress(f"fleet: {summary(steps[-1])}")
                if broke:
                    findings.details["fleet_broke"] = f"{size} workers: {broke}"
                    break
                if size == sizes.restart_at:
                    findings.details["restart"] = restart = self._restart(fleet)
                    findings.figures["reconnect_500_s"] = restart["after_answering_s"]
                    progress(f"fleet: all of {size} back {restart}")
        findings.figures |= figures(steps, fleet.tally.doubled())

    def _step(self, fleet: Fleet, size: int, steps: list[dict[str, Any]]) -> str | None:
        """Add one step to ``steps``; return why it does not count as carried, or None."""
        found: dict[str, Any] = {"workers": size}
        steps.append(found)
        try:
            found["connecting_s"] = fleet.grow(size, self._sizes.connects_per_second)
            time.sleep(SETTLED)
            found["quiet"] = quiet = self._quiet(fleet)
            found["busy"] = self._busy(fleet, quiet)
        except RuntimeError as failure:
            found["broke"] = str(failure)
            return str(failure)
        memory = [process.memory_full_info() for process in self._api_processes()]
        found["api_rss_mb"] = sum(part.rss for part in memory) / 1e6
        found["api_pss_mb"] = sum(part.pss for part in memory) / 1e6
        found["errors"] = fleet.tally.errors[-3:]
        return verdict(found)

    def _quiet(self, fleet: Fleet) -> dict[str, float]:
        """Measure a time in which there are heartbeats only."""
        fleet.reset()
        before = self._meter()
        with self._statements.counting() as counted:
            time.sleep(self._sizes.fleet_seconds)
        after = self._meter()
        beats = max(1, len(fleet.tally.heartbeats))
        took = after.at - before.at
        return {
            "heartbeats": beats,
            "heartbeats_per_s": beats / took,
            "statements_per_s": counted.total() / self._sizes.fleet_seconds,
            "statements_per_heartbeat": counted.total() / beats,
            "cpu_share": (after.cpu - before.cpu) / took,
            "cpu_ms_per_heartbeat": (after.cpu - before.cpu) * 1000 / beats,
            "broken": fleet.tally.broken,
            **{name: value for name, value in fleet.tally.times().items() if name.startswith("heartbeat")},
        }

    def _busy(self, fleet: Fleet, quiet: dict[str, float]) -> dict[str, Any]:
        """Measure a time in which jobs flow as well, until the last has ended."""
        sizes = self._sizes
        producer = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.producer", str(sizes.jobs_per_second), str(sizes.fleet_seconds)],
            env={
                **self.cluster.env,
                "PYTHONPATH": str(Path.cwd()),
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"{self._database}?application_name={BENCH}",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with producer:
            while (line := producer.stdout.readline()) and line != "ready\n":
                pass
            fleet.reset()
            before = self._meter()
            with self._statements.counting() as counted:
                made = json.loads(producer.communicate("go\n")[0].splitlines()[-1])
                end = time.monotonic() + ENDED_WITHIN
                while fleet.tally.lost(made) and time.monotonic() < end:
                    time.sleep(0.2)
            after = self._meter()
        took, jobs = after.at - before.at, len(made)
        return {
            "jobs": jobs,
            "lost": fleet.tally.lost(made),
            "doubled": fleet.tally.doubled(),
            "stale": fleet.tally.stale,
            "broken": fleet.tally.broken,
            "not_ended_in_database": self._unfinished(),
            "statements": dict(counted.most_common(15)),
            "statements_per_job": (counted.total() - quiet["statements_per_s"] * took) / jobs,
            "cpu_share": (after.cpu - before.cpu) / took,
            "cpu_ms_per_job": (after.cpu - before.cpu - quiet["cpu_share"] * took) * 1000 / jobs,
            **fleet.tally.times(),
        }

    def _restart(self, fleet: Fleet) -> dict[str, float]:
        """Kill the API process and start it again; return how long the fleet took to be back."""
        self.cluster.forget("api-server").kill()
        killed = time.monotonic()
        fleet.until(lambda: fleet.connected == 0, "the channels to break", 30)
        self.cluster.start_api_server()
        self.cluster.wait(lambda: healthy(self.cluster.port), "the API server to answer", 120)
        answering = time.monotonic()
        fleet.until(lambda: fleet.connected == len(fleet), "the fleet to be back", BACK_WITHIN)
        back = time.monotonic()
        return {"after_kill_s": back - killed, "after_answering_s": back - answering, "refused": fleet.tally.refused}

    def _unfinished(self) -> int:
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM edge_otel_job WHERE state <> 'success'")
            return int(cursor.fetchone()[0])

    def _meter(self) -> Meter:
        cpu = [process.cpu_times() for process in self._api_processes()]
        return Meter(time.monotonic(), sum(part.user + part.system for part in cpu))

    def _api_processes(self) -> list[psutil.Process]:
        root = psutil.Process(self.cluster.processes["api-server"].pid)
        return [root, *root.children(recursive=True)]


def verdict(step: dict[str, Any]) -> str | None:
    """Return why a step does not count as carried, or None."""
    busy = step["busy"]
    if busy["lost"] or busy["doubled"] or busy["not_ended_in_database"]:
        return f"{busy['lost']} jobs lost, {busy['doubled']} doubled, {busy['not_ended_in_database']} not ended"
    if step["quiet"]["broken"] or busy["broken"]:
        return f"{step['quiet']['broken'] + busy['broken']} channels broke"
    if busy["confirmed_p99_s"] > ASSIGNED_WITHIN:
        return f"assignment p99 {busy['confirmed_p99_s']:.2f} s"
    return None


def summary(step: dict[str, Any]) -> str:
    """Return a step as a line."""
    if "busy" not in step:
        return f"{step['workers']} workers: {step['broke']}"
    quiet, busy = step["quiet"], step["busy"]
    return (
        f"{step['workers']} workers: heartbeat p50 {quiet['heartbeat_p50_s'] * 1000:.1f} ms"
        f" p99 {quiet['heartbeat_p99_s'] * 1000:.0f} ms, {quiet['statements_per_heartbeat']:.2f} statements"
        f" {quiet['cpu_ms_per_heartbeat']:.2f} ms CPU each; assignment p50 {busy['confirmed_p50_s'] * 1000:.0f} ms"
        f" p99 {busy['confirmed_p99_s'] * 1000:.0f} ms, {busy['statements_per_job']:.1f} statements"
        f" {busy['cpu_ms_per_job']:.1f} ms CPU each; API {busy['cpu_share']:.0%} of a core,"
        f" {step['api_rss_mb']:.0f} MB; lost {busy['lost']}, doubled {busy['doubled']}"
    )


def figures(steps: list[dict[str, Any]], doubled: int) -> dict[str, float]:
    """Return the figures of the table: of the largest step that was carried, and of growth from 100 to 2,000."""
    measured = {step["workers"]: step for step in steps if "busy" in step}
    carried = {size: step for size, step in measured.items() if verdict(step) is None}
    found: dict[str, float] = {
        "fleet_workers": max(carried, default=0),
        "fleet_lost": sum(step["busy"]["lost"] for step in measured.values()),
        "fleet_doubled": doubled,
    }
    if 2000 in measured:
        found["fleet_assignment_p99_s"] = measured[2000]["busy"]["confirmed_p99_s"]
    if 100 in measured and 2000 in measured:
        small, large = measured[100], measured[2000]
        for name, half, key in (
            ("growth_assignment", "busy", "confirmed_p50_s"),
            ("growth_statements_per_job", "busy", "statements_per_job"),
            ("growth_statements_per_heartbeat", "quiet", "statements_per_heartbeat"),
            ("growth_cpu_per_heartbeat", "quiet", "cpu_ms_per_heartbeat"),
        ):
            found[name] = large[half][key] / small[half][key]
    return found


def main() -> None:
    """Measure one growing fleet."""
    parser = ArgumentParser()
    parser.add_argument("database")
    parser.add_argument("postgres_log", type=Path)
    parser.add_argument("sizes", type=json.loads, help="JSON")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="edge-bench-"))
    findings = Findings("ours")
    growth = Growth(arguments.database, arguments.postgres_log, place, Sizes(**arguments.sizes))
    try:
        findings.attempt("fleet", growth.measure)
    finally:
        growth.stop()
        if not findings.failed:
            shutil.rmtree(place, ignore_errors=True)
        print(findings.as_json())


if __name__ == "__main__":
    main()
