"""What a task leaves behind ends with its job, however it left, and whoever died."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest
from conftest import Start, finished, workload
from fake_server import FakeCentral
from test_jobs import gone, running

pytestmark = pytest.mark.parametrize("transport", ["channel"])

DAEMONISE = """
def daemonise(note, ignore=False):
    # In a session of its own, with a parent that is dead: as daemons do.
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            if ignore:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            Path(note + '.new').write_text(str(os.getpid()))
            os.rename(note + '.new', note)
            while True:
                signal.pause()
        os._exit(0)
    os.wait()
    wait_for_file(note)
"""


def pid_in(note: Path) -> int:
    return int(note.read_text())


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
@pytest.mark.parametrize("stubborn", [False, True])
def test_daemon_of_a_task_ends_with_it_and_its_log_says_so(
    central: FakeCentral, start: Start, tmp_path: Path, launch: str, stubborn: bool
) -> None:
    note = tmp_path / "pid"
    daemon = start(launch=launch, kill_grace=0.3)
    job = central.offer(workload(f"{DAEMONISE}\ndaemonise({str(note)!r}, {stubborn}); log(b'done\\n')"))
    central.wait_for(finished(job))
    assert job.state == "success"
    left = pid_in(note)
    # Before the job was reported, that is: nothing waits here.
    assert gone(left)
    assert job.end is not None
    said = bytes(job.log).decode()
    assert said.startswith("done\n")
    line = json.loads(said.splitlines()[1])
    assert line["level"] == "warning"
    assert f"(pid {left})" in line["event"]
    assert not [p for p in psutil.Process(daemon.pid).children(recursive=True) if p.pid == left]


def test_helper_that_ends_by_itself_is_not_told_of(central: FakeCentral, start: Start) -> None:
    start(launch="zygote")
    job = central.offer(
        workload(
            "import subprocess\n"
            "subprocess.run(['sh', '-c', 'true & true'], check=True)\n"
            "subprocess.Popen(['sh', '-c', 'sleep 0.01'])\n"
            "log(b'done')"
        )
    )
    central.wait_for(finished(job))
    assert (job.state, bytes(job.log)) == ("success", b"done")


def test_killed_supervisor_leaves_nothing_in_any_session(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    note, other = tmp_path / "pid", tmp_path / "other"
    go = tmp_path / "go"
    start(launch="zygote")
    bystander = central.offer(workload(f"{DAEMONISE}\ndaemonise({str(other)!r}); wait_for_file({str(go)!r})"))
    central.wait_for(other.exists)
    job = central.offer(workload(f"{DAEMONISE}\ndaemonise({str(note)!r}, True); os.kill(os.getpid(), signal.SIGKILL)"))
    central.wait_for(finished(job))
    assert job.end is not None
    assert job.end["exit_code"] == -signal.SIGKILL
    assert gone(pid_in(note))
    assert not gone(pid_in(other))
    go.touch()
    central.wait_for(finished(bystander))
    assert gone(pid_in(other))


def test_supervisor_killed_without_a_daemon_leaves_nothing(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    first = start(launch="zygote")
    job = central.offer(workload(f"{DAEMONISE}\ndaemonise({str(note)!r}, True); wait_for_file('/nonexistent')"))
    supervisor = running(central, first)
    central.wait_for(note.exists)
    first.process.kill()
    first.process.wait(10)
    os.kill(supervisor, signal.SIGKILL)
    central.wait_for(lambda: gone(pid_in(note)))
    start(launch="zygote")
    central.wait_for(finished(job))
    assert job.state == "failed"
