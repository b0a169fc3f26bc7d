"""A daemon that leaves its jobs to the next one, the ways in which one ends, and what is told by exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Start, finished, workload
from edge_worker import processes
from edge_worker.journal import JobFolder
from fake_server import FakeCentral


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
@pytest.mark.parametrize("by", ["command", "signal"])
def test_handover_leaves_at_once_and_the_next_daemon_sees_the_job_through(
    central: FakeCentral, start: Start, tmp_path: Path, launch: str, by: str
) -> None:
    go = tmp_path / "go"
    first = start(launch=launch)
    job = central.offer(workload(f"log(b'before\\n'); wait_for_file({str(go)!r}); log(b'after\\n')"))
    central.wait_for(lambda: bytes(job.log) == b"before\n")
    process = JobFolder(first.folders()[0]).started()
    assert process is not None
    if by == "signal":
        first.process.send_signal(signal.SIGUSR1)
    else:
        assert first.command("handover", "--wait").returncode == 0
    assert first.process.wait(20) == 5
    assert processes.alive(process)
    assert not {"terminating", "offline"} & {report["state"] for report in central.reports}
    second = start(launch=launch)
    central.wait_for(lambda: central.last()["session"] == second.status()["session"])
    words = [report for report in central.reports if report["session"] == central.last()["session"]]
    assert words[0]["jobs"] == [{"id": job.id, "claim": 1, "slots": 1}]
    assert second.status()["jobs"][0]["pid"] == process.pid
    go.touch()
    central.wait_for(finished(job))
    assert (job.state, bytes(job.log)) == ("success", b"before\nafter\n")


@pytest.mark.parametrize("transport", ["channel"])
def test_handover_ends_a_drain_that_waits(central: FakeCentral, start: Start) -> None:
    daemon = start()
    job = central.offer(workload("wait_for_file('/nonexistent')"))
    central.wait_for(lambda: job.state == "running")
    daemon.command("drain")
    central.wait_for(lambda: central.last()["state"] == "terminating")
    daemon.command("handover")
    assert daemon.process.wait(20) == 5
    assert job.end is None


@pytest.mark.parametrize("transport", ["channel"])
def test_drain_that_is_waited_for_returns_when_the_daemon_has_left(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    daemon = start()
    job = central.offer(workload(f"wait_for_file({str(go)!r})"))
    central.wait_for(lambda: job.state == "running")
    drain = subprocess.Popen(
        [sys.executable, "-m", "edge_worker", "drain", "--wait", "--state-dir", str(daemon.state_dir)],
        stdout=subprocess.PIPE,
        text=True,
    )
    central.wait_for(lambda: central.last()["state"] == "terminating")
    assert drain.poll() is None
    go.touch()
    said, _ = drain.communicate(timeout=30)
    # Nobody has waited for the daemon yet: it is gone all the same.
    assert daemon.process.wait(1) == 0
    assert "the daemon has left" in said
    assert job.state == "success"


@pytest.mark.parametrize("transport", ["channel"])
def test_second_sigterm_stops_the_jobs(central: FakeCentral, start: Start) -> None:
    daemon = start(kill_grace=5)
    job = central.offer(workload("wait_for_file('/nonexistent')"))
    central.wait_for(lambda: job.state == "running")
    daemon.process.terminate()
    central.wait_for(lambda: central.last()["state"] == "terminating")
    daemon.process.terminate()
    assert daemon.process.wait(20) == 0
    assert job.end is not None
    assert "SIGTERM was received" in job.end["error"]


@pytest.mark.parametrize("transport", ["channel"])
def test_comment_of_a_maintenance_is_changed_and_kept(central: FakeCentral, start: Start) -> None:
    daemon = start()
    refused = daemon.command("maintenance", "comment", "no belt")
    assert (refused.returncode, "is not in maintenance" in refused.stderr) == (2, True)
    daemon.command("maintenance", "on", "--comment", "belt broken")
    central.wait_for(lambda: central.last().get("maintenance_comments") == "belt broken")
    central.comment = "belt broken"
    assert daemon.command("maintenance", "comment", "belt comes on Monday").returncode == 0
    central.wait_for(lambda: central.last().get("maintenance_comments") == "belt comes on Monday")
    # The server has answered with the former comment meanwhile: it had not heard of the new one.
    seen = len(central.reports)
    central.wait_for(lambda: len(central.reports) > seen + 2)
    assert central.last().get("maintenance_comments") == "belt comes on Monday"
    central.comment = "an administrator's"
    central.wait_for(lambda: central.last().get("maintenance_comments") == "an administrator's")


@pytest.mark.parametrize("transport", ["channel"])
def test_defect_ends_the_daemon_with_code_1_though_a_thread_hangs(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import threading, time\n"
        "from edge_worker import plan\n"
        "def defect(interval, draw):\n"
        "    threading.Thread(target=time.sleep, args=(300,)).start()\n"
        "    raise RuntimeError('this is a defect')\n"
        "plan.jittered = defect\n"
    )
    daemon = start(registered=False, env={"PYTHONPATH": str(broken)})
    assert daemon.process.wait(30) == 1
    assert "this is a defect" in daemon.said
    # It is expected here, and nowhere else.
    daemon.log.write_text("")


def test_exit_codes_and_signals_are_documented_where_one_looks() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge_worker", "start", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    for code in range(6):
        assert f"\n  {code}  " in done.stdout
    assert "SIGUSR1" in done.stdout
