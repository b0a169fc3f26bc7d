"""Systems on which something is missing that nearly all have: the daemon does without it, or says what to do."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import Start, finished, workload
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
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


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


def test_what_a_shell_has_started_before_it_became_the_daemon_is_left_alone(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    mark = tmp_path / "pid"
    daemon = start(by=(*IN_SHELL, f'setsid sleep 600 & echo $! > {mark}; exec "$@"', "sh"))
    other = psutil.Process(int(mark.read_text()))
    try:
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
        assert other.is_running()
        assert other.status() != psutil.STATUS_ZOMBIE
    finally:
        other.kill()
