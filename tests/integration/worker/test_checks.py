"""Health as probes, Prometheus and people see it, of real daemons."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import Daemon, Start, finished, workload
from fake_server import FakeCentral
from prometheus_client.parser import text_string_to_metric_families

from edge_otel.telemetry import names

pytestmark = pytest.mark.parametrize("transport", ["channel"])


@pytest.fixture
def watched(central: FakeCentral, start: Start) -> Callable[..., tuple[Daemon, str]]:
    """Start a daemon with a health port; return it with the URL."""

    def begin(**options: Any) -> tuple[Daemon, str]:
        daemon = start(health_port=0, **options)
        return daemon, central.wait_for(lambda: re.search(r"health is told at (http\S+?)\"", daemon.said))[1]

    return begin


def get(url: str, **headers: str) -> tuple[int, str]:
    answer = requests.get(url, headers=headers, timeout=10)
    return answer.status_code, answer.text


Watched = Callable[..., tuple[Daemon, str]]


def test_registered_daemon_is_live_and_ready(central: FakeCentral, watched: Watched) -> None:
    _, url = watched()
    central.wait_for(lambda: get(f"{url}/readyz") == (200, "ok\n"))
    assert get(f"{url}/livez") == (200, "ok\n")


def test_nothing_listens_unless_it_is_asked_for(central: FakeCentral, start: Start) -> None:
    daemon = start()
    assert daemon.status()["live"] == {"ok": True, "reasons": []}
    assert "health is told" not in daemon.said


def test_server_that_is_away_makes_it_unready_but_not_dead(central: FakeCentral, watched: Watched) -> None:
    daemon, url = watched()
    central.wait_for(lambda: get(f"{url}/readyz")[0] == 200)
    central.down = True
    central.wait_for(lambda: "not registered" in get(f"{url}/readyz")[1])
    assert get(f"{url}/readyz")[0] == 503
    assert get(f"{url}/livez") == (200, "ok\n")
    assert daemon.command("status", "--check", "ready").returncode == 1
    assert daemon.command("status", "--check", "live").returncode == 0
    central.down = False
    central.wait_for(lambda: get(f"{url}/readyz")[0] == 200)


def test_maintenance_and_drain_make_it_unready(central: FakeCentral, watched: Watched, tmp_path: Path) -> None:
    daemon, url = watched()
    go = tmp_path / "go"
    job = central.offer(workload(f"wait_for_file({str(go)!r})"))
    central.wait_for(lambda: job.state == "running")
    daemon.command("maintenance", "on", "--comment", "new belt")
    assert get(f"{url}/readyz") == (503, "in maintenance: new belt\n")
    daemon.command("maintenance", "off")
    central.wait_for(lambda: get(f"{url}/readyz")[0] == 200)
    daemon.command("drain")
    assert get(f"{url}/readyz") == (503, "leaving: asked to on this machine\n")
    go.touch()
    assert daemon.process.wait(20) == 0


def test_state_folder_that_cannot_be_written_makes_it_unready(central: FakeCentral, watched: Watched) -> None:
    daemon, url = watched()
    central.wait_for(lambda: get(f"{url}/readyz")[0] == 200)
    # A folder in the place of the file: so root is stopped by it, too.
    (daemon.state_dir / ".writable").mkdir()
    status, text = get(f"{url}/readyz")
    assert (status, "the state folder cannot be written" in text) == (503, True)
    (daemon.state_dir / ".writable").rmdir()
    central.wait_for(lambda: get(f"{url}/readyz")[0] == 200)


def test_event_loop_that_stands_still_is_not_live(central: FakeCentral, watched: Watched) -> None:
    daemon, url = watched()
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        with pytest.raises(requests.Timeout):
            requests.get(f"{url}/livez", timeout=1)
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    central.wait_for(lambda: get(f"{url}/livez")[0] == 200)


def test_status_tells_of_loops_jobs_and_backlogs(central: FakeCentral, watched: Watched, tmp_path: Path) -> None:
    daemon, url = watched(concurrency=3)
    go = tmp_path / "go"
    job = central.offer(workload(f"log(b'x' * 5000); wait_for_file({str(go)!r})"))
    central.wait_for(lambda: job.state == "running" and daemon.status()["jobs"][0]["pid"])
    found = requests.get(f"{url}/status", timeout=10).json()
    (told,) = found["jobs"]
    assert (told["id"], told["task_id"], told["running"]) == (job.id, "task with/slash", True)
    os.kill(told["pid"], 0)
    assert found["started"] <= told["since"]
    assert {"heartbeat", "fetch", "receive", "leave", "logs", "outbox", "telemetry-traces", "meters"} <= found[
        "loops"
    ].keys()
    assert found["loops"]["heartbeat"]["within"] is not None
    assert found["contact_age"] < 5
    assert (found["free"], found["concurrency"]) == (2, 3)
    assert found["versions"]["airflow_version"] == "3.3.2"
    assert found["outbox"].keys() == {"size", "dropped", "errors"}
    text = daemon.command("status").stdout
    for words in ("site-1: running", "ready        yes", "2 of 3 free", job.id, f"pid {told['pid']}", "heartbeat"):
        assert words in text
    go.touch()
    central.wait_for(finished(job))


def test_telemetry_that_cannot_leave_is_told_with_the_reason(central: FakeCentral, watched: Watched) -> None:
    from fake_server import Answer

    central.settings["otlp"] = True
    central.faults.append(lambda call: Answer(503, raw=b"") if "/v2/otlp/" in call.path else None)
    daemon, _ = watched(telemetry_interval=0.2)
    central.wait_for(lambda: "503" in daemon.status()["outbox"]["errors"].get("metrics", ""))
    assert daemon.status()["outbox"]["size"] > 0
    assert "metrics: " in daemon.command("status").stdout


def test_metrics_are_prometheus_text_with_the_names_of_the_catalogue(central: FakeCentral, watched: Watched) -> None:
    daemon, url = watched(concurrency=5)
    central.wait_for(lambda: get(f"{url}/readyz")[0] == 200)
    answer = requests.get(f"{url}/metrics", timeout=10)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    declared = {metric.name.removesuffix("_total"): metric for metric in names.LOCAL}
    assert families.keys() <= declared.keys()
    assert declared.keys() - families.keys() <= {"edge_daemon_dropped_telemetry"}
    for name, family in families.items():
        assert (family.type, family.documentation) == (declared[name].kind, declared[name].help)
        assert all(set(sample.labels) == set(declared[name].labels) for sample in family.samples)
    values = {name: family.samples[0].value for name, family in families.items()}
    assert (values["edge_daemon_ready"], values["edge_daemon_slots"]) == (1, 5)
    assert values["edge_daemon_start_timestamp_seconds"] == daemon.status()["started"]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/status", {"Host": "evil.example:80"}, 403),
        ("/status", {"Origin": "https://evil.example"}, 403),
        ("/nothing", {}, 404),
        ("/status", {"Host": "localhost:1"}, 200),
    ],
)
def test_pages_of_a_browser_cannot_read_it(watched: Watched, path: str, headers: dict[str, str], status: int) -> None:
    _, url = watched()
    assert get(f"{url}{path}", **headers)[0] == status
    assert requests.post(f"{url}/livez", timeout=10).status_code == 405


def test_port_that_is_taken_is_told_in_one_line(start: Start, watched: Watched, tmp_path: Path) -> None:
    _, url = watched()
    second = start(registered=False, state_dir=tmp_path / "second", health_port=url.rpartition(":")[2])
    assert second.process.wait(20) == 2
    assert "--health-port: cannot listen at 127.0.0.1" in second.said
