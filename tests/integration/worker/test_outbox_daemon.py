"""Telemetry of tasks and of the daemon itself, through real daemons."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from conftest import Daemon, Start, finished, workload
from edge_worker.receiver import PORT_FILE
from fake_server import Answer, FakeCentral, FakeJob
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from payloads import names, payload

from demo.wait import wait_for

pytestmark = pytest.mark.parametrize("transport", ["polling"])

TASK = """
import logging, os
os.environ["OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED"] = "true"
from opentelemetry import metrics, trace
from opentelemetry.sdk._configuration import _OTelSDKConfigurator

_OTelSDKConfigurator().configure()
with trace.get_tracer("user").start_as_current_span("span of a user"):
    logging.getLogger("user").warning("line of a user")
metrics.get_meter("user").create_counter("counter.of.a.user").add(1)
"""
"""Any program that is configured by the standard variables."""


def run_with_environment(code: str) -> dict[str, Any]:
    """A workload that runs Python code in a child, and logs the environment that tasks have."""
    return workload(
        f"import subprocess\ncode = subprocess.call([{sys.executable!r}, '-W', 'ignore', '-c', {code!r}])\n"
        "log(json.dumps(dict(os.environ)).encode())"
    )


def environment(job: FakeJob) -> dict[str, str]:
    found: dict[str, str] = json.loads(job.log)
    return found


def arrived(central: FakeCentral, signal: str) -> list[str]:
    return [name for sent in central.telemetry if sent.signal == signal for name in sent.names]


def send(daemon: Daemon, signal: str, name: str) -> None:
    """Send as a task does."""
    port = (daemon.state_dir / PORT_FILE).read_text()
    url = f"http://127.0.0.1:{port}/v1/{signal}"
    answer = requests.post(
        url, payload(signal, name), headers={"Content-Type": "application/x-protobuf"}, timeout=(1, 1)
    )
    assert (answer.status_code, answer.content) == (200, b"")


def spooled(daemon: Daemon, signal: str = "-") -> list[Path]:
    """Files of the spool; all, or those of a signal."""
    return sorted((daemon.state_dir / "outbox").glob(f"*{signal}*.gz"))


def kept(daemon: Daemon, signal: str) -> list[str]:
    """Names of what the spool holds."""
    return [name for path in spooled(daemon, signal) for name in names(signal, gzip.decompress(path.read_bytes()))]


def test_any_program_of_a_task_just_works_and_sees_no_secret(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    central.settings["otlp"] = True
    file = tmp_path / "env"
    file.write_text("HTTP_PROXY=http://127.0.0.1:9\nOTEL_RESOURCE_ATTRIBUTES=team=blue\n")
    daemon = start(task_env_file=file, env={"OTEL_EXPORTER_OTLP_HEADERS": "x-key=hunter2"})
    job = central.offer(run_with_environment(TASK))
    central.wait_for(finished(job))
    assert job.state == "success"
    central.wait_for(
        lambda: (
            "span of a user" in arrived(central, "traces")
            and "counter.of.a.user" in arrived(central, "metrics")
            and "line of a user" in arrived(central, "logs")
        )
    )
    traces = [sent for sent in central.telemetry if "span of a user" in sent.names]
    spans = ExportTraceServiceRequest.FromString(traces[0].payload).resource_spans
    resource = {a.key: a.value.string_value for a in spans[0].resource.attributes}
    told = {"edge.worker.name": "site-1", "service.namespace": "airflow", "service.name": "airflow-task"}
    assert {**told, "team": "blue"}.items() <= resource.items()
    env = environment(job)
    assert not [key for key in env if key.startswith("EDGE_WORKER_") or key == "OTEL_EXPORTER_OTLP_HEADERS"]
    assert not [key for key, value in env.items() if central.token in value or "hunter2" in value]
    assert central.token not in daemon.said


def test_span_of_the_daemon_goes_the_same_way(central: FakeCentral, start: Start) -> None:
    central.settings["otlp"] = True
    start(env={"OTEL_BSP_SCHEDULE_DELAY": "100"})
    carrier = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    central.wait_for(finished(central.offer(workload("log(b'x')"), carrier=carrier)))
    central.wait_for(lambda: "process default" in arrived(central, "traces"))


def test_killed_daemon_delivers_its_spool_after_the_restart_once_and_in_order(
    central: FakeCentral, start: Start
) -> None:
    central.settings["otlp"] = True
    central.faults.append(lambda call: Answer(503) if "/v2/otlp/" in call.path else None)
    first = start()
    for number in range(12):
        send(first, "traces", f"span {number}")
        send(first, "metrics", f"m{number}")
        if number % 4 == 3:
            wait_for(lambda: f"span {number}" in kept(first, "traces"), "files", timeout=5, pause=0.01)  # noqa: B023
    wait_for(lambda: "m11" in kept(first, "metrics"), "files", timeout=5, pause=0.01)
    port = (first.state_dir / PORT_FILE).read_text()
    first.process.kill()
    first.process.wait(10)
    torn = first.state_dir / "outbox" / "000000900000-traces-4.otlp.gz"
    torn.write_bytes(spooled(first)[0].read_bytes()[:-9])
    central.faults.clear()
    second = start()
    assert (second.state_dir / PORT_FILE).read_text() == port
    send(second, "traces", "span 12")
    central.wait_for(lambda: "span 12" in arrived(central, "traces") and "m11" in arrived(central, "metrics"))
    mine = [name for name in arrived(central, "traces") if name.startswith("span ")]
    assert mine == [f"span {number}" for number in range(13)]
    assert [name for name in arrived(central, "metrics") if name.startswith("m")] == [f"m{n}" for n in range(12)]
    wait_for(lambda: "4 payloads of traces were dropped" in second.said, "a word", timeout=5, pause=0.05)
    assert "000000900000-traces-4.otlp.gz is dropped" in second.said
    assert not torn.exists()


def test_nothing_is_felt_of_a_dead_central_site_or_a_folder_that_cannot_be_used(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    central.settings["otlp"] = True
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "outbox").write_text("in the way")
    daemon = start()
    central.down = True
    for number in range(20):
        send(daemon, "logs", f"line {number}")
    central.down = False
    central.wait_for(lambda: "line 19" in arrived(central, "logs"))
    mine = [name for name in arrived(central, "logs") if name.startswith("line ")]
    assert mine == [f"line {number}" for number in range(20)]
    assert daemon.said.count("cannot keep telemetry") == 1
    central.wait_for(finished(central.offer(workload("log(b'x')"))))


def test_collector_of_the_site_is_used_and_neither_its_key_nor_the_token_gets_out(
    central: FakeCentral, start: Start
) -> None:
    # The central side has none: nobody asks it.
    central.settings["otlp"] = False
    start(env={"OTEL_EXPORTER_OTLP_ENDPOINT": central.origin, "OTEL_EXPORTER_OTLP_HEADERS": "x-key=hunter2"})
    job = central.offer(run_with_environment(TASK))
    central.wait_for(finished(job))
    central.wait_for(lambda: {"traces", "metrics", "logs"} <= {sent.signal for sent in central.collected})
    for sent in central.collected:
        assert sent.call.headers["x-key"] == "hunter2"
        assert central.token not in str(sent.call)
    assert "hunter2" not in job.log.decode()
    assert central.telemetry == []


def test_central_side_without_a_collector_means_that_nothing_more_is_kept(central: FakeCentral, start: Start) -> None:
    daemon = start()
    wait_for(lambda: "has no collector" in daemon.said, "a word", timeout=5, pause=0.02)
    send(daemon, "traces", "unwanted")
    central.wait_for(finished(central.offer(run_with_environment(TASK))))
    assert kept(daemon, "metrics") == []
    assert not {"unwanted", "span of a user"} & set(kept(daemon, "traces"))


def test_sdk_that_is_disabled_turns_all_of_it_off(central: FakeCentral, start: Start) -> None:
    central.settings["otlp"] = True
    daemon = start(env={"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    job = central.offer(run_with_environment("pass"))
    central.wait_for(finished(job))
    set_here = [key for key in environment(job) if key.startswith(("OTEL_", "AIRFLOW__TRACES"))]
    assert set_here == ["OTEL_SDK_DISABLED"]
    assert not (daemon.state_dir / PORT_FILE).exists()
    assert not (daemon.state_dir / "outbox").exists()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"PROTOCOL": "grpc", "ENDPOINT": "http://127.0.0.1:4317"}, "speaks only http/protobuf"),
        ({"ENDPOINT": "127.0.0.1:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT is not a full URL"),
    ],
)
def test_collector_that_cannot_be_used_is_said_at_the_start(start: Start, variables: dict[str, str], said: str) -> None:
    daemon = start(registered=False, env={f"OTEL_EXPORTER_OTLP_{key}": value for key, value in variables.items()})
    assert daemon.process.wait(20) == 2
    assert said in daemon.said


def test_daemon_with_everything_on_stays_small(central: FakeCentral, start: Start) -> None:
    central.settings["otlp"] = True
    daemon = start(env={"OTEL_BSP_SCHEDULE_DELAY": "100"})
    for signal in ("traces", "metrics", "logs"):
        send(daemon, signal, f"n {signal}")
    carrier = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    central.wait_for(finished(central.offer(workload("log(b'x')"), carrier=carrier)))
    central.wait_for(lambda: "process default" in arrived(central, "traces") and "n logs" in arrived(central, "logs"))
    size = psutil.Process(daemon.pid).memory_info().rss
    print(f"{size / 1e6:.1f} MB")
    assert size <= 65e6
