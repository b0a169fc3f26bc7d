"""What a task leaves behind ends with its job, however it left, and whoever died."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from conftest import Daemon, Start, finished, stub_interpreter, workload
from fake_server import Answer, FakeCentral
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


RUN_AWAY = """
def run_away(mark):
    # One process at a time, each with another pid and session, that holds a lock as long as one of them lives.
    import fcntl
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        held = open(mark, 'w')
        fcntl.flock(held, fcntl.LOCK_EX)
        Path(mark + '.there').touch()
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if os.fork():
                os._exit(0)
            os.setsid()
        os._exit(0)
    wait_for_file(mark + '.there')
"""


def at_rest(mark: Path) -> bool:
    """Return whether nobody runs away any more; a look at all processes might miss the one."""
    with mark.open() as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def zombies_of(pid: int) -> list[int]:
    seen = (process.info for process in psutil.process_iter(["pid", "ppid", "status"]))
    return [one["pid"] for one in seen if one["ppid"] == pid and one["status"] == psutil.STATUS_ZOMBIE]


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


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_process_that_forks_without_end_does_not_outrun_its_end(
    central: FakeCentral, start: Start, tmp_path: Path, launch: str
) -> None:
    mark = tmp_path / "mark"
    start(launch=launch, kill_grace=0.3)
    job = central.offer(workload(f"{RUN_AWAY}\nrun_away({str(mark)!r}); log(b'done\\n')"))
    central.wait_for(finished(job))
    assert at_rest(mark)
    assert job.state == "success"
    assert "The task left processes behind, which were ended" in bytes(job.log).decode()


def test_zygote_ends_what_a_supervisor_has_left_though_it_told_of_its_end(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    mark, note, go = tmp_path / "mark", tmp_path / "pid", tmp_path / "go"
    blind = "sys.modules['edge_task_run'].leftovers.end = lambda *args: []"
    start(launch="zygote")
    bystander = central.offer(workload(f"{DAEMONISE}\ndaemonise({str(note)!r}); wait_for_file({str(go)!r})"))
    central.wait_for(note.exists)
    job = central.offer(workload(f"{blind}\n{RUN_AWAY}\nrun_away({str(mark)!r})"))
    central.wait_for(finished(job))
    assert at_rest(mark)
    assert job.state == "success"
    assert not gone(pid_in(note))
    go.touch()
    central.wait_for(finished(bystander))


def test_what_is_left_is_stopped_before_it_is_killed(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    """Else those below would see their parents die, and could go on."""
    note, seen = tmp_path / "pid", tmp_path / "seen"
    do = f"""
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        os.close(writer)
        Path({str(note)!r}).write_text(str(os.getpid()))
        os.read(reader, 1)
        Path({str(seen)!r}).touch()
        os._exit(0)
    wait_for_file('/nonexistent')
wait_for_file({str(note)!r})
"""
    start(launch="interpreter", kill_grace=0.1)
    job = central.offer(workload(do))
    central.wait_for(finished(job))
    assert gone(pid_in(note))
    assert not seen.exists()


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
    central.wait_for(lambda: not zombies_of(daemon.pid))


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


def test_dead_supervisor_of_a_job_that_stays_is_taken_away_when_the_job_has_left(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    """A zygote that hangs has not waited for it, and it comes to the daemon when nobody there waits for it any more."""
    go, held = tmp_path / "go", [Answer(503)]
    daemon = start(launch="zygote")
    jobs = [central.offer(workload(f"log(b'begun'); wait_for_file({str(go)!r})")) for _ in range(2)]
    central.faults.append(lambda call: held[0] if held and f"{jobs[0].id}/log" in call.path else None)
    central.wait_for(lambda: len([f for f in daemon.folders() if (f / "process.json").exists()]) == 2)
    [zygote] = psutil.Process(daemon.pid).children()
    zygote.suspend()
    go.touch()
    central.wait_for(lambda: len(daemon.folders()) == 1)
    zygote.kill()
    # That of the other one is gone: somebody has looked.
    central.wait_for(lambda: len(zombies_of(daemon.pid)) == 1)
    held.clear()
    central.wait_for(lambda: daemon.folders() == [])
    central.wait_for(lambda: not zombies_of(daemon.pid))


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


def test_what_the_dead_supervisor_of_a_job_that_was_taken_away_has_left_is_ended(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    do = f"import subprocess; subprocess.run(['sh', '-c', 'sleep 3600 & echo $! > {note}'], check=True)"
    first = start(launch="interpreter", kill_grace=600)
    job = central.offer(workload(f"{ignore}; {do}; wait_for_file('/nonexistent')"))
    supervisor = running(central, first)
    central.wait_for(lambda: note.exists() and note.read_text().strip())
    job.withdraw()
    assert central.channel is not None
    central.channel.send(type="cancel", id=job.id, claim=1)
    # Written down before anybody is signalled.
    central.wait_for((first.folders()[0] / "report.json").exists)
    first.process.kill()
    first.process.wait(10)
    os.kill(supervisor, signal.SIGKILL)
    central.wait_for(lambda: gone(supervisor))
    assert not gone(pid_in(note))
    second = start(launch="interpreter", kill_grace=600)
    central.wait_for(lambda: second.folders() == [])
    assert gone(pid_in(note))


NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc")

only_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may make a PID namespace"
)


def first_process(outer: Daemon) -> psutil.Process:
    [daemon] = psutil.Process(outer.pid).children()
    return daemon


def leave(daemon: psutil.Process, script: str) -> None:
    """Run a script beside the first process of a namespace, to which comes what the script leaves."""
    command = ["nsenter", "--target", str(daemon.pid), "--pid", "--mount", "sh", "-c", script]
    subprocess.run(command, check=True)


@only_root
@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_first_process_of_a_container_takes_away_all_dead_and_kills_only_what_is_a_jobs(
    central: FakeCentral, start: Start, tmp_path: Path, launch: str
) -> None:
    """As init of a PID namespace the daemon is given everybody's orphans."""
    note, go = tmp_path / "pid", tmp_path / "go"
    outer = start(launch=launch, by=NAMESPACE)
    daemon = first_process(outer)
    job = central.offer(workload(f"{DAEMONISE}\ndaemonise({str(note)!r}); wait_for_file({str(go)!r})"))
    central.wait_for(note.exists)
    leave(daemon, "setsid sleep 3600 & setsid true &")
    killer = central.offer(workload("os.kill(os.getpid(), signal.SIGKILL)"))
    central.wait_for(finished(killer))
    go.touch()
    central.wait_for(finished(job))
    central.wait_for(lambda: not zombies_of(daemon.pid))
    [left] = [child for child in daemon.children() if child.name() == "sleep"]
    assert outer.exit_code() is None
    daemon.kill()
    central.wait_for(lambda: gone(left.pid))


@only_root
def test_who_died_while_a_job_started_is_taken_away_afterwards(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    """Until then it may be the supervisor that is being started."""
    hold, slow = tmp_path / "hold", tmp_path / "slow-python"
    slow.write_text(f'#!/bin/sh\nwhile [ -e {hold} ]; do sleep 0.05; done\nexec {stub_interpreter(tmp_path)} "$@"\n')
    slow.chmod(0o755)
    daemon = first_process(start(launch="zygote", task_python=slow, by=NAMESPACE))
    hold.touch()
    job = central.offer(workload("log(b'ran')"))
    central.wait_for(daemon.children)
    leave(daemon, "setsid sh -c 'sleep 3600 &' &")
    # The one who led the session is dead; that the other one is taken away shows that somebody has looked.
    [left] = central.wait_for(lambda: [child for child in daemon.children() if child.name() == "sleep"])
    left.kill()
    central.wait_for(lambda: not left.is_running())
    assert len(zombies_of(daemon.pid)) == 1
    hold.unlink()
    central.wait_for(finished(job))
    assert job.state == "success"
    central.wait_for(lambda: not zombies_of(daemon.pid))
