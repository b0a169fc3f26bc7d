"""The worker's metrics, as the gateway gets them from a real daemon."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Start, finished, workload
from edge_worker.host import Host
from edge_worker.readings import HostReadings
from fake_server import CUT, Answer, Call, FakeCentral
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, Metric

from edge_otel import __version__
from edge_otel.telemetry import names

pytestmark = pytest.mark.parametrize("transport", ["polling"])

BURN = "import time\nuntil = time.process_time() + 0.4\nwhile time.process_time() < until: pass\n"


@dataclass(frozen=True)
class Point:
    metric: Metric
    attributes: dict[str, Any]
    value: Any
    """A number, or the point of a histogram."""
    time: float
    """Seconds since the epoch."""


def kind_of(metric: Metric) -> str:
    if metric.WhichOneof("data") == "sum":
        return "counter" if metric.sum.is_monotonic else "updowncounter"
    return str(metric.WhichOneof("data"))


def points_of(request: ExportMetricsServiceRequest) -> Iterable[Point]:
    for metric in (m for r in request.resource_metrics for s in r.scope_metrics for m in s.metrics):
        for point in getattr(metric, metric.WhichOneof("data")).data_points:
            attributes = {kv.key: kv.value.string_value for kv in point.attributes}
            value = point if kind_of(metric) == "histogram" else getattr(point, point.WhichOneof("value"))
            yield Point(metric, attributes, value, point.time_unix_nano / 1e9)


def requests(central: FakeCentral) -> list[ExportMetricsServiceRequest]:
    return [ExportMetricsServiceRequest.FromString(t.payload) for t in central.telemetry if t.signal == "metrics"]


def points(central: FakeCentral, metric: names.Metric | None = None) -> list[Point]:
    found = [point for request in requests(central) for point in points_of(request)]
    return [point for point in found if metric is None or point.metric.name == metric.name]


def latest(central: FakeCentral, metric: names.Metric, **attributes: str) -> Any:
    wanted = set(attributes.values())
    found = [p.value for p in points(central, metric) if wanted <= set(p.attributes.values())]
    return found[-1] if found else None


@pytest.fixture
def collecting(central: FakeCentral) -> FakeCentral:
    """The central site has a collector, and wants metrics often."""
    central.settings.update(otlp=True, telemetry_interval=0.3)
    return central


FACTS = "def read():\n    return {'belt_speed': 1.5, 'name': 'site', 'status': 20}\n"


def with_facts(folder: Path, text: str) -> dict[str, str]:
    """Write the user's module; return the environment in which it is found."""
    (folder / "site_facts.py").write_text(text)
    return {"PYTHONPATH": str(folder)}


def test_all_of_the_catalogue_is_emitted_and_nothing_else(
    collecting: FakeCentral, start: Start, tmp_path: Path
) -> None:
    central, known = collecting, {metric.name: metric for metric in names.WORKER}

    def refuse_traces(call: Call) -> Any:
        if call.path.endswith("/v2/otlp/v1/traces"):
            return Answer(400, {"error": "NotOtlp", "detail": "because the test says so", "error_id": "e-1"})
        return None

    central.faults.append(refuse_traces)
    env = {**with_facts(tmp_path, FACTS), "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=plant"}
    env["OTEL_BSP_SCHEDULE_DELAY"] = "50"
    daemon = start(env=env, facts_function="site_facts:read")
    central.offer(workload("log(b'begun\\n'); wait_for_file('/nonexistent')"))
    central.registered = False  # it has to register again
    central.wait_for(lambda: known.keys() <= {point.metric.name for point in points(central)})

    emitted = points(central)
    for point in emitted:
        metric = known[point.metric.name]
        told = (kind_of(point.metric), point.metric.unit, point.metric.description)
        assert told == (metric.kind, metric.unit, metric.help), metric.name
        assert point.attributes.keys() == set(metric.labels), metric.name
        for label in metric.labels:
            assert isinstance(label, names.Attribute)
            assert not label.values or point.attributes[label] in label.values, (metric.name, point.attributes)
        if kind_of(point.metric) == "histogram":
            assert tuple(point.value.explicit_bounds) == metric.buckets
        if kind_of(point.metric) != "gauge":
            data = getattr(point.metric, point.metric.WhichOneof("data"))
            assert data.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
    resource = requests(central)[-1].resource_metrics[0].resource
    who = {kv.key: kv.value.string_value for kv in resource.attributes}
    assert (who[names.SERVICE_NAME], who[names.WORKER_NAME], who[names.SERVICE_VERSION]) == (
        "edge-worker",
        "site-1",
        __version__,
    )
    assert who[names.DEPLOYMENT] == "plant"

    assert latest(central, names.MEMORY_LIMIT) == psutil.virtual_memory().total
    assert latest(central, names.CPU_COUNT) == psutil.cpu_count()
    assert latest(central, names.FILESYSTEM_LIMIT) == psutil.disk_usage(str(tmp_path)).total
    assert latest(central, names.UPTIME) == pytest.approx(time.time() - psutil.boot_time(), abs=30)
    rss = psutil.Process(daemon.pid).memory_info().rss
    assert latest(central, names.DAEMON_MEMORY) == pytest.approx(rss, rel=0.2)
    by_state = [latest(central, names.MEMORY_USAGE, state=state) for state in names.MEMORY_STATE.values]
    assert sum(by_state) == psutil.virtual_memory().total
    last = emitted[-1].time
    shares = [p.value for p in emitted if p.metric.name == names.CPU_UTILIZATION.name and last - p.time < 0.1]
    assert sum(shares) == pytest.approx(1, abs=0.01)
    assert latest(central, names.JOBS_PROCESSES, queue="default") == 1
    assert latest(central, names.FACTS, fact="belt_speed") == 1.5
    assert {point.attributes[names.FACT] for point in points(central, names.FACTS)} == {"belt_speed"}
    assert not [p for p in emitted if p.attributes.get(names.INTERFACE) == "lo"]


def test_cpu_time_of_jobs_never_falls_and_counts_children_and_jobs_that_have_ended(
    collecting: FakeCentral, start: Start, tmp_path: Path
) -> None:
    start()
    code = f"import subprocess; subprocess.run([sys.executable, '-c', {BURN!r}])"
    go = tmp_path / "go"
    job = collecting.offer(workload(f"{code}; wait_for_file({str(go)!r})"))

    def told() -> list[float]:
        return [point.value for point in points(collecting, names.JOBS_CPU)]

    collecting.wait_for(lambda: told() and told()[-1] >= 0.4)  # by a child that has ended
    go.touch()
    collecting.wait_for(finished(job))
    short = collecting.offer(workload(code))  # begins and ends between two readings, or nearly
    collecting.wait_for(finished(short))
    collecting.wait_for(lambda: told()[-1] >= 0.8)
    seen = len(told())
    collecting.wait_for(lambda: len(told()) > seen)
    assert told() == sorted(told())
    assert latest(collecting, names.JOBS_PROCESSES, queue="default") == 0


def test_readings_of_an_outage_arrive_afterwards_with_their_own_times(collecting: FakeCentral, start: Start) -> None:
    start()
    collecting.wait_for(lambda: points(collecting, names.UPTIME))
    down = time.time()
    collecting.faults.append(lambda call: Answer(503) if "/otlp/" in call.path else None)
    before = max(report["sysinfo"]["outbox_size"] for report in collecting.reports)
    collecting.wait_for(lambda: collecting.last()["sysinfo"]["outbox_size"] > before + 12_000)
    collecting.wait_for(lambda: time.time() > down + 2)
    up = time.time()
    collecting.faults.clear()
    collecting.wait_for(lambda: any(point.time > up for point in points(collecting, names.UPTIME)))
    collecting.wait_for(lambda: len([p for p in points(collecting, names.UPTIME) if down < p.time < up]) >= 5)
    times = sorted(point.time for point in points(collecting, names.UPTIME))
    assert len(set(times)) == len(times)
    during = [at for at in times if down < at < up]
    assert max(b - a for a, b in zip([down, *during], [*during, up], strict=True)) < 1.0
    uptimes = {point.time: point.value for point in points(collecting, names.UPTIME)}
    born = {round(at - uptime) for at, uptime in uptimes.items()}
    assert max(born) - min(born) <= 1  # each value is of its own time


def test_a_changed_interval_is_heeded(collecting: FakeCentral, start: Start) -> None:
    collecting.settings["telemetry_interval"] = 3600
    start()
    collecting.wait_for(lambda: points(collecting, names.UPTIME))
    collecting.settings["telemetry_interval"] = 0.2
    collecting.wait_for(lambda: len(points(collecting, names.UPTIME)) > 3)


def test_heartbeats_carry_the_compact_subset_and_stay_small(collecting: FakeCentral, start: Start) -> None:
    collecting.faults.append(lambda call: CUT if call.path.endswith("/log") else None)
    start()
    collecting.offer(workload("log(b'x' * 100); wait_for_file('/nonexistent')"))
    collecting.wait_for(lambda: collecting.last()["sysinfo"]["log_backlog"] == 100)
    collecting.wait_for(lambda: latest(collecting, names.LOG_BACKLOG) == 100)
    facts = collecting.last()["sysinfo"]
    numbers = {"cpu_percent", "memory_percent", "disk_percent", "load1", "load5", "outbox_size"}
    assert all(isinstance(facts[name], int | float) for name in numbers | {"outbox_dropped", "clock_skew"})
    assert abs(facts["clock_skew"]) < 1
    assert facts["disk_percent"] == pytest.approx(psutil.disk_usage("/tmp").percent, abs=5)
    beats = [call for call in collecting.calls if call.method == "PATCH" and "/v1/worker/" in call.path]
    assert len(beats[-1].body) < 1500


def test_a_source_that_the_system_does_not_have_is_left_out_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, transport: str
) -> None:
    def missing(*_: object) -> None:
        raise FileNotFoundError("/proc/vmstat")

    monkeypatch.setattr(psutil, "disk_usage", missing)
    assert {"cpu_percent", "load1"} <= Host(tmp_path, {}, datetime.now(UTC)).facts().keys()
    monkeypatch.undo()
    monkeypatch.setattr(psutil, "swap_memory", missing)
    host = HostReadings(tmp_path)
    host.read()
    found = host.read()
    assert names.SWAP_USAGE not in found
    assert names.MEMORY_USAGE in found
    assert [record.message for record in caplog.records] == [
        "metrics of swap cannot be read: FileNotFoundError: /proc/vmstat"
    ]
