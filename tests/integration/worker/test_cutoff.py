"""Jobs of a worker that is cut off for longer than its policy allows."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Start, finished, gone, workload
from fake_server import FakeCentral
from test_airflow import events, execute_task, real

POLICY = {"disconnect_policy": "stop-after 2s", "kill_grace": 1}


def job_process(folders: list[Path]) -> psutil.Process:
    return psutil.Process(json.loads((folders[0] / "process.json").read_text())["pid"])


IGNORES = "signal.signal(signal.SIGTERM, signal.SIG_IGN); "


@pytest.mark.parametrize("ignores", ["", IGNORES], ids=["obeys", "ignores SIGTERM"])
def test_jobs_are_stopped_while_the_server_is_away_and_told_when_it_is_back(
    central: FakeCentral, start: Start, tmp_path: Path, ignores: str
) -> None:
    daemon = start(**POLICY)
    job = central.offer(workload(f"{ignores}log(b'begun\\n'); wait_for_file({str(tmp_path / 'never')!r})"))
    central.wait_for(lambda: job.log)
    assert central.last()["sysinfo"]["jobs_stopped_after"] == 3
    process = job_process(daemon.folders())
    central.down = True
    central.wait_for(lambda: gone(process))
    assert daemon.exit_code() is None
    central.down = False
    central.wait_for(finished(job))
    assert job.state == "failed"
    assert "no server has answered for 2 s" in str(job.end and job.end["error"])
    later = central.offer(workload("pass"))
    central.wait_for(finished(later))
    assert later.state == "success"


def test_the_policy_may_change_while_a_job_runs(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    toml = tmp_path / "worker.toml"
    toml.write_text("kill_grace = 1\n")
    daemon = start(config=toml)
    job = central.offer(workload(f"log(b'begun\\n'); wait_for_file({str(tmp_path / 'never')!r})"))
    central.wait_for(lambda: job.log)
    toml.write_text('kill_grace = 1\ndisconnect_policy = "stop-after 2s"\n')
    assert daemon.command("reload").stdout == "changed: --disconnect-policy\n"
    central.wait_for(lambda: central.last()["sysinfo"].get("jobs_stopped_after") == 3)
    process = job_process(daemon.folders())
    central.down = True
    central.wait_for(lambda: gone(process))
    central.down = False
    central.wait_for(finished(job))
    assert "no server has answered for 2 s" in str(job.end and job.end["error"])


def test_heartbeats_are_so_frequent_that_the_policy_does_not_take_a_pause_for_an_outage(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    start(**POLICY, heartbeat_interval=3600)
    job = central.offer(workload(f"log(b'begun\\n'); wait_for_file({str(tmp_path / 'go')!r})"))
    central.wait_for(lambda: job.log)
    before = len(central.reports)
    central.wait_for(lambda: len(central.reports) > before + 8)
    (tmp_path / "go").touch()
    central.wait_for(finished(job))
    assert job.state == "success", job.end


def test_jobs_are_kept_without_a_policy(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    go = tmp_path / "go"
    daemon = start()
    job = central.offer(workload(f"log(b'begun\\n'); wait_for_file({str(go)!r})"))
    central.wait_for(lambda: job.log)
    assert "jobs_stopped_after" not in central.last()["sysinfo"]
    assert not (daemon.state_dir / "contact").exists()
    central.down = True
    before = len(central.calls) + len(central.upgrades)
    central.wait_for(lambda: len(central.calls) + len(central.upgrades) > before + 3, 60)
    go.touch()
    central.down = False
    central.wait_for(finished(job))
    assert job.state == "success"


def test_the_time_counts_on_while_no_daemon_is_there(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    first = start(disconnect_policy="stop-after 3s", kill_grace=1)
    job = central.offer(workload(f"log(b'begun\\n'); wait_for_file({str(tmp_path / 'never')!r})"))
    central.wait_for(lambda: job.log)
    process = job_process(first.folders())
    central.wait_for((first.state_dir / "contact").exists)
    first.process.kill()
    first.process.wait(10)
    central.down = True
    # As if it had been away for an hour.
    boot, last, limit = (first.state_dir / "contact").read_text().split()
    (first.state_dir / "contact").write_text(f"{boot} {float(last) - 3600:015.3f} {limit}\n")
    start(registered=False, disconnect_policy="stop-after 50m", kill_grace=1)
    central.wait_for(lambda: gone(process))
    central.down = False
    central.wait_for(finished(job))
    assert job.state == "failed"


WAITS = """
import os, time
from airflow.sdk import dag, task

@dag(schedule=None)
def edge():
    @task
    def waits():
        print("before")
        while True:
            time.sleep(0.1)
    waits()

edge()
"""


@pytest.mark.parametrize("transport", ["channel"])
def test_a_task_stops_itself_when_no_daemon_is_there_to_do_so(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    env = {"AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1"}
    daemon = real(central, start, tmp_path, dag=WAITS, env=env, disconnect_policy="stop-after 30m")
    job = execute_task(central, "waits")
    central.wait_for(lambda: "before" in events(job), 90)
    contact = daemon.state_dir / "contact"
    central.wait_for(contact.exists)
    (task,) = job_process(daemon.folders()).children()
    daemon.process.kill()
    daemon.process.wait(10)
    boot, last, limit = contact.read_text().split()
    contact.write_text(f"{boot} {float(last) - 7200:015.3f} {limit}\n")
    central.wait_for(lambda: gone(task), 60)
    real(central, start, tmp_path, dag=WAITS, env=env)
    central.wait_for(finished(job))
    assert any("has not reached its server for 72" in event for event in events(job))


@pytest.mark.parametrize("transport", ["channel"])
def test_a_task_goes_on_while_the_daemon_that_cannot_write_its_contact_down_answers(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    env = {"AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1"}
    rights = "-dac_override,-dac_read_search"
    by = ("setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}")
    daemon = real(central, start, tmp_path, dag=WAITS, env=env, by=by, disconnect_policy="stop-after 30m")
    job = execute_task(central, "waits")
    central.wait_for(lambda: "before" in events(job), 90)
    contact = daemon.state_dir / "contact"
    (task,) = job_process(daemon.folders()).children()
    contact.chmod(0o400)
    boot, last, limit = contact.read_text().split()
    contact.write_text(f"{boot} {float(last) - 7200:015.3f} {limit}\n")

    def beats() -> int:
        return sum(call.path.endswith("/heartbeat") for call in central.executions)

    before = beats()
    central.wait_for(lambda: beats() > before + 3 or gone(task), 60)
    assert not gone(task)
    # One that hangs does not see to it that the task ends.
    daemon.process.send_signal(signal.SIGSTOP)
    central.wait_for(lambda: gone(task), 60)


@pytest.mark.parametrize("transport", ["channel"])
@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"disconnect_policy": "stop"}, "--disconnect-policy"),
        ({"env": {"EDGE_WORKER_DISCONNECT_POLICY": "stop-after soon"}}, "stop-after 30m"),
    ],
)
def test_a_policy_that_is_none_is_a_bad_configuration(
    central: FakeCentral, start: Start, source: dict[str, Any], told: str
) -> None:
    daemon = start(registered=False, **source)
    exited: Callable[[], bool] = lambda: daemon.exit_code() is not None  # noqa: E731
    central.wait_for(exited)
    assert daemon.exit_code() == 2
    assert told in daemon.said
