"""What a task leaves behind ends with its job, however it left, and whoever died."""

from __future__ import annotations

import json
import os
import signal
import subprocess
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


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_nothing_is_left_when_all_but_the_daemon_are_killed(
    central: FakeCentral, start: Start, tmp_path: Path, launch: str
) -> None:
    """Orphans in a session of their own come to the daemon, which has no other trace of them."""
    note = tmp_path / "pid"
    daemon = start(launch=launch)
    job = central.offer(workload(f"{DAEMONISE}\ndaemonise({str(note)!r}, True); wait_for_file('/nonexistent')"))
    supervisor = running(central, daemon)
    central.wait_for(note.exists)
    if launch == "zygote":
        psutil.Process(supervisor).parent().kill()
        central.wait_for(lambda: psutil.Process(supervisor).ppid() == daemon.pid)
    os.kill(supervisor, signal.SIGKILL)
    central.wait_for(finished(job))
    assert job.end is not None
    # The daemon is the supervisor's parent now, and sees how it has ended.
    assert (job.state, job.end["exit_code"]) == ("failed", -signal.SIGKILL)
    central.wait_for(lambda: gone(pid_in(note)))
    central.wait_for(lambda: not [c for c in psutil.Process(daemon.pid).children() if c.status() == "zombie"])


def test_jobs_go_on_under_the_daemon_when_their_zygote_is_killed(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    daemon = start(launch="zygote")
    jobs = [central.offer(workload(f"wait_for_file({str(go)!r}); log(b'ran')")) for _ in range(4)]
    central.wait_for(lambda: len([f for f in daemon.folders() if (f / "process.json").exists()]) == 4)
    [zygote] = psutil.Process(daemon.pid).children()
    zygote.kill()
    central.wait_for(lambda: len(psutil.Process(daemon.pid).children()) == 4)
    late = central.offer(workload("log(b'late')"))
    central.wait_for(finished(late))
    go.touch()
    for job in jobs:
        central.wait_for(finished(job))
        assert (job.state, bytes(job.log)) == ("success", b"ran")
    central.wait_for(lambda: len(psutil.Process(daemon.pid).children()) == 1)


def test_process_without_supervisor_and_session_is_found_by_its_environment(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    first = start(launch="interpreter")
    do = f"import subprocess; subprocess.run(['sh', '-c', 'setsid sleep 3600 & echo $! > {note}'], check=True)"
    job = central.offer(workload(f"{do}; wait_for_file('/nonexistent')"))
    supervisor = running(central, first)
    central.wait_for(lambda: note.exists() and note.read_text().strip())
    first.process.kill()
    first.process.wait(10)
    os.kill(supervisor, signal.SIGKILL)
    central.wait_for(lambda: gone(supervisor))
    assert not gone(pid_in(note))
    start(launch="interpreter")
    central.wait_for(finished(job))
    assert gone(pid_in(note))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may make a PID namespace")
@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_first_process_of_a_container_takes_away_all_dead_and_kills_only_what_is_a_jobs(
    central: FakeCentral, start: Start, tmp_path: Path, launch: str
) -> None:
    """As init of a PID namespace the daemon is given everybody's orphans."""
    note, go = tmp_path / "pid", tmp_path / "go"
    outer = start(launch=launch, by=("unshare", "--pid", "--fork", "--mount-proc"))
    [daemon] = psutil.Process(outer.pid).children()
    job = central.offer(workload(f"{DAEMONISE}\ndaemonise({str(note)!r}); wait_for_file({str(go)!r})"))
    central.wait_for(note.exists)
    command = ["nsenter", "--target", str(daemon.pid), "--pid", "--mount"]
    subprocess.run([*command, "sh", "-c", "setsid sleep 3600 & setsid true &"], check=True)
    killer = central.offer(workload("os.kill(os.getpid(), signal.SIGKILL)"))
    central.wait_for(finished(killer))
    go.touch()
    central.wait_for(finished(job))
    central.wait_for(lambda: not [c for c in daemon.children() if c.status() == psutil.STATUS_ZOMBIE])
    [left] = [child for child in daemon.children() if child.name() == "sleep"]
    assert outer.exit_code() is None
    daemon.kill()
    central.wait_for(lambda: gone(left.pid))
