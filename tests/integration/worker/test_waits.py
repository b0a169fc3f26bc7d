"""Local commands that return when the daemon has done what they ask."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conftest import Start, workload
from fake_server import FakeCentral


def test_maintenance_with_wait_returns_when_the_jobs_are_over(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    daemon = start()
    go = tmp_path / "go"
    job = central.offer(workload(f"wait_for_file({str(go)!r})"))
    central.wait_for(lambda: job.state == "running")
    command = [sys.executable, "-m", "edge_worker", "maintenance", "on", "--wait", "--state-dir", str(daemon.state_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline().endswith(": maintenance pending, 1 jobs\n")
        assert waiting.poll() is None
        go.touch()
        assert waiting.stdout.read().endswith(": maintenance mode\n")
        assert waiting.wait(20) == 0
    assert job.state == "success"


def test_the_wait_for_a_maintenance_ends_with_it(central: FakeCentral, start: Start) -> None:
    daemon = start()
    job = central.offer(workload("wait_for_file('/nonexistent')"))
    central.wait_for(lambda: job.state == "running")
    command = [sys.executable, "-m", "edge_worker", "maintenance", "on", "--wait", "--state-dir", str(daemon.state_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline().endswith(": maintenance pending, 1 jobs\n")
        assert daemon.command("maintenance", "off").returncode == 0
        assert waiting.stdout.read().endswith(": running\n")
        assert waiting.wait(20) == 0
