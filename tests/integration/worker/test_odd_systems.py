"""Systems on which something is missing that nearly all have: the daemon does without it, or says what to do."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import Start, finished, gone, workload
from edge_worker import processes
from edge_worker.journal import Started
from fake_server import FakeCentral
from tools import missing

pytestmark = pytest.mark.parametrize("transport", ["channel"])

IN_SHELL = ("sh", "-c")


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_without_a_boot_id_jobs_are_watched_and_stopped_all_the_same(
    central: FakeCentral, start: Start, launch: str
) -> None:
    hide = "mount -t tmpfs tmpfs /proc/sys/kernel/random"
    alone = ("unshare", "--mount", *IN_SHELL)
    if subprocess.run([*alone, hide], capture_output=True, check=False).returncode:
        missing("no file system can be mounted here")
    daemon = start(by=(*alone, f'{hide} && exec "$@"', "sh"), launch=launch)
    job = central.offer(workload("log(b'begun\\n'); wait_for_file('/nonexistent')"))
    central.wait_for(lambda: job.log)
    (folder,) = daemon.folders()
    process = psutil.Process(json.loads((folder / "process.json").read_text())["pid"])
    daemon.process.kill()
    daemon.process.wait(10)
    again = start(by=(*alone, f'{hide} && exec "$@"', "sh"), launch=launch)
    central.wait_for(lambda: "adopted, pid" in again.said)
    assert again.command("stop").returncode == 0
    central.wait_for(finished(job))
    assert job.end is not None
    assert job.end["error"] == "Stopped by the edge worker: stopped on this machine."
    assert gone(process)


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_closed_standard_streams_are_nobody_elses(
    central: FakeCentral, start: Start, launch: str, tmp_path: Path
) -> None:
    daemon = start(by=(*IN_SHELL, 'exec "$@" <&- >&- 2>&-', "sh"), launch=launch)
    go = tmp_path / "go"
    job = central.offer(workload(f"log(b'begun\\n'); wait_for_file({str(go)!r})"))
    central.wait_for(lambda: job.log)
    assert {os.readlink(f"/proc/{daemon.pid}/fd/{number}") for number in range(3)} == {os.devnull}  # noqa: PTH115
    go.touch()
    central.wait_for(finished(job))
    assert job.state == "success"
    daemon.process.terminate()
    assert daemon.process.wait(20) == 0


@pytest.mark.parametrize(
    "arguments", [("status",), ("status", "--output", "json"), ("drain",), ("stop", "--wait"), ("start", "--help")]
)
def test_command_whose_words_nobody_reads_does_its_work_without_complaint(
    central: FakeCentral, start: Start, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    daemon = start(state_dir=tmp_path / "state")
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "edge_worker", *arguments, "--state-dir", str(daemon.state_dir)]
    # As usual: what is printed waits until there is more of it.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=env, timeout=30, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
    if "--wait" in arguments:
        assert daemon.exit_code() == 0


def test_command_whose_words_find_no_room_says_so(central: FakeCentral, start: Start) -> None:
    daemon = start()
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        command = [sys.executable, "-m", "edge_worker", "status", "--state-dir", str(daemon.state_dir)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (2, b"edge-worker: cannot print: No space left on device\n")


@pytest.mark.parametrize("command", ["start", "status"])
def test_user_without_a_home_is_told_to_name_a_folder(transport: str, command: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    code = "import os, sys; os.setuid(54321); from edge_worker.main import main; main(sys.argv[1:])"
    flags = {"start": ["--server", "http://127.0.0.1:9", "--token-file", str(token)], "status": []}
    if os.geteuid() != 0:
        missing("only root can become a user without a home")
    # Modules are found before the user changes, who may not see them.
    done = subprocess.run(
        [sys.executable, "-c", "import edge_worker.local, edge_worker.settings; " + code, command, *flags[command]],
        env={name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_STATE_HOME")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--state-dir is missing, and this user has no home" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_guard_comes_back_when_there_are_open_files_again(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    daemon = start(launch="zygote", job_processes=3)
    go = tmp_path / "go"
    fork = "os.fork() or wait_for_file('/nonexistent')"
    job = central.offer(
        workload(f"log(b'begun\\n'); wait_for_file({str(go)!r}); {fork}; {fork}; {fork}; code = os.wait()[1]")
    )
    central.wait_for(lambda: job.log)
    usual = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, usual[1]))
    central.wait_for(lambda: "a defect ends guard" in daemon.said)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, usual)
    go.touch()
    central.wait_for(finished(job))
    assert "more than the 3 that --job-processes allows" in str(job.end and job.end["error"])
    assert daemon.exit_code() is None
    # With a traceback that is no fault of the daemon's.
    daemon.log.write_text("")


def test_who_died_while_there_were_no_open_files_is_taken_away_afterwards(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    mark = tmp_path / "pid"
    daemon = start(by=(*IN_SHELL, f'setsid sleep 600 & echo $! > {mark}; exec "$@"', "sh"))
    child = psutil.Process(int(mark.read_text()))
    usual = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, usual[1]))
    child.kill()
    central.wait_for(lambda: "a defect ends orphans" in daemon.said)
    assert child.status() == psutil.STATUS_ZOMBIE
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, usual)
    central.wait_for(lambda: not child.is_running())
    # As above.
    daemon.log.write_text("")


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_a_job_that_ends_while_there_are_no_open_files(
    central: FakeCentral, start: Start, launch: str, tmp_path: Path
) -> None:
    daemon = start(launch=launch)
    go = tmp_path / "go"
    job = central.offer(workload(f"log(b'begun\\n'); wait_for_file({str(go)!r})"))
    central.wait_for(lambda: job.log)
    usual = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, usual[1]))
    central.wait_for(lambda: "cannot be written" in daemon.said)
    go.touch()
    central.wait_for(finished(job))
    assert job.state == "success", job.end
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, usual)
    central.wait_for(lambda: "can be written again" in daemon.said)
    later = central.offer(workload("pass"))
    central.wait_for(finished(later))
    assert daemon.exit_code() is None
    # As above.
    daemon.log.write_text("")


def test_a_job_that_ends_while_its_zygote_hangs_is_reported_as_it_was(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    daemon = start(launch="zygote")
    go = tmp_path / "go"
    job = central.offer(workload(f"log(b'begun\\n'); wait_for_file({str(go)!r}); code = 3"))
    central.wait_for(lambda: job.log)
    (zygote,) = psutil.Process(daemon.pid).children()
    zygote.suspend()
    try:
        go.touch()
        central.wait_for(finished(job))
    finally:
        zygote.resume()
    assert job.end is not None
    assert (job.state, job.end["exit_code"]) == ("failed", 3)


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_an_error_with_the_name_of_a_file_that_is_no_text_is_told(
    central: FakeCentral, start: Start, launch: str
) -> None:
    start(launch=launch)
    job = central.offer(workload("raise OSError(os.fsdecode(b'no \\xff here'))"))
    central.wait_for(finished(job))
    assert job.end is not None
    assert (job.state, job.end["exit_code"]) == ("failed", 1)
    assert job.end["error"] == "The task's supervisor failed: OSError: no \\udcff here"


async def ended_with(files: int, process: Started) -> tuple[bool, int | None]:
    """Return whether a process that lives seems to have ended, and its exit code when it has.

    Meanwhile there are only so many open files to look with.
    """
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + files, usual[1]))
    try:
        end = asyncio.create_task(processes.ended(process))
        done, _ = await asyncio.wait({end}, timeout=3 * processes.POLL)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)
    return bool(done), await end


@pytest.mark.parametrize("files", [0, 1])
def test_no_process_is_taken_for_ended_because_there_is_no_file_to_look_with(transport: str, files: int) -> None:
    sleeper = subprocess.Popen(["sleep", "600"])
    process = Started(sleeper.pid, processes.identity(sleeper.pid), 0.0)
    try:
        assert asyncio.run(ended_with(files, process)) == (False, -signal.SIGKILL)
    finally:
        sleeper.kill()
        sleeper.wait(10)


def test_what_a_shell_has_started_before_it_became_the_daemon_is_left_alone(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    mark = tmp_path / "pid"
    go, later = tmp_path / "go", tmp_path / "later"
    # One more that forks when the daemon is there, and goes.
    forks = f"setsid sh -c 'while [ ! -e {go} ]; do sleep 0.05; done; sleep 600 & echo $! > {later}'"
    daemon = start(by=(*IN_SHELL, f'setsid sleep 600 & echo $! > {mark}; {forks} & exec "$@"', "sh"))
    other = psutil.Process(int(mark.read_text()))
    go.touch()
    central.wait_for(lambda: later.exists() and later.read_text())
    orphan = psutil.Process(int(later.read_text()))
    try:
        central.wait_for(lambda: orphan.ppid() == daemon.pid)
        # Nothing but its parent tells whose it is.
        do = """
pid = os.fork() or os.execlp("setsid", "setsid", "env", "-i", "sleep", "600")
while b"AIRFLOW" in Path(f"/proc/{pid}/environ").read_bytes():
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""
        job = central.offer(workload(do))
        central.wait_for(finished(job))
        central.wait_for(lambda: "was left behind and is killed" in daemon.said)
        for process in (other, orphan):
            assert process.is_running()
            assert process.status() != psutil.STATUS_ZOMBIE
    finally:
        other.kill()
        orphan.kill()
