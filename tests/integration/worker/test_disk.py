"""A state folder that is full, read-only or removed while jobs run: they go on, and no hand is needed afterwards."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Daemon, Start, finished, workload
from edge_worker.journal import JobFolder
from fake_server import FakeCentral, FakeJob
from test_airflow import events, execute_task, real
from tools import missing

pytestmark = pytest.mark.parametrize("transport", ["channel"])


def mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """The state folder, on a file system of its own with little room."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    if not mount("-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(state)):
        missing("no file system can be mounted here")
    yield state
    subprocess.run(["umount", "-l", str(state)], check=True)


def fill(folder: Path) -> Path:
    """Leave no room; return what takes it."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as handle:
        for size in (65536, 1):
            try:
                while True:
                    handle.write(b"x" * size)
            except OSError:
                continue
    return filler


def running(central: FakeCentral, folder: Path) -> FakeJob:
    job = central.offer(workload(f"log(b'begun\\n'); wait_for_file({str(folder / 'go')!r})"))
    central.wait_for(lambda: bytes(job.log) == b"begun\n")
    return job


def sees_to_it(
    central: FakeCentral,
    daemon: Daemon,
    job: FakeJob,
    folder: Path,
    harm: Callable[[], object],
    heal: Callable[[], object],
    nothing_left: Callable[[Daemon], bool] = lambda daemon: daemon.folders() == [],
) -> None:
    """Harm the state folder while a job runs, and see that it ends well, that none is taken, and that all heals."""
    harm()
    (folder / "go").touch()
    central.wait_for(finished(job))
    assert job.state == "success", job.end
    central.wait_for(lambda: nothing_left(daemon))
    # What the job has left free is taken, too.
    harm()
    central.wait_for(lambda: [central.last()["sysinfo"][name] for name in ("free_concurrency", "status")] == [0, 40])
    declined = central.offer(workload("pass"))
    central.wait_for(lambda: declined.state == "queued" and "declined" in daemon.said)
    assert daemon.exit_code() is None
    heal()
    central.wait_for(lambda: central.last()["sysinfo"]["status"] == 20)
    later = central.offer(workload("pass"))
    central.wait_for(finished(later))
    assert later.state == "success"
    central.wait_for(lambda: nothing_left(daemon))


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_a_full_disk(central: FakeCentral, start: Start, small: Path, tmp_path: Path, launch: str) -> None:
    daemon = start(launch=launch, disk_error=0, disk_warning=0)
    job = running(central, tmp_path)
    sees_to_it(central, daemon, job, tmp_path, lambda: fill(small), (small / "filler").unlink)
    assert "cannot be written: No space left on device" in daemon.said


def test_a_read_only_disk(central: FakeCentral, start: Start, small: Path, tmp_path: Path) -> None:
    daemon = start(launch="zygote", disk_error=0, disk_warning=0)
    job = running(central, tmp_path)

    def harm() -> None:
        # One on which files are open does not become read-only: another one in its place is.
        if not small.joinpath("lock").exists():
            return
        assert mount("-t", "tmpfs", "-o", "ro", "tmpfs", str(small))

    def heal() -> None:
        subprocess.run(["umount", "-l", str(small)], check=True)

    sees_to_it(central, daemon, job, tmp_path, harm, heal, lambda _: True)
    assert "cannot be written: Read-only file system" in daemon.said


def test_a_folder_that_the_daemon_may_not_look_into(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    rights = "-dac_override,-dac_read_search"
    daemon = start(by=("setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"), launch="zygote")
    job = running(central, tmp_path)
    daemon.state_dir.chmod(0)
    try:
        central.wait_for(lambda: "cannot be written: Permission denied" in daemon.said)
        # All that looks there again and again has done so.
        central.wait_for(lambda: daemon.said.count("Permission denied") > 1 or daemon.exit_code() is not None)
    finally:
        daemon.state_dir.chmod(0o700)
    (tmp_path / "go").touch()
    central.wait_for(finished(job))
    assert job.state == "success", job.end
    assert daemon.exit_code() is None
    # For certain, and not only where it has looked in time.
    assert not JobFolder(tmp_path / ("too long" * 100)).wants_token()


def test_a_removed_folder_is_made_anew(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    daemon = start(launch="zygote")
    job = running(central, tmp_path)
    shutil.rmtree(daemon.state_dir)
    (tmp_path / "go").touch()
    central.wait_for(lambda: job.end)
    assert job.state == "success", job.end
    # Nothing else is known of its log.
    central.wait_for(lambda: b"folder of this task was removed" in job.log)
    central.wait_for(lambda: "is made anew" in daemon.said)
    assert daemon.state_dir.stat().st_mode & 0o777 == 0o700
    later = central.offer(workload("log(b'later\\n')"))
    central.wait_for(finished(later))
    assert (later.state, bytes(later.log)) == ("success", b"later\n")
    assert daemon.command("status").returncode == 0
    second = start(registered=False)
    central.wait_for(lambda: second.exit_code() is not None)
    assert "another edge-worker" in second.said


def test_a_daemon_starts_on_a_full_disk_and_takes_no_jobs_until_there_is_room(
    central: FakeCentral, start: Start, small: Path
) -> None:
    for name in ("jobs", "broken", "outbox"):
        (small / name).mkdir(mode=0o700)
    (small / "lock").touch()
    filler = fill(small)
    daemon = start()
    central.wait_for(lambda: "no jobs are taken" in daemon.said)
    central.wait_for(lambda: central.last()["sysinfo"]["free_concurrency"] == 0)
    filler.unlink()
    central.wait_for(lambda: central.last()["sysinfo"]["free_concurrency"] > 0)
    job = central.offer(workload("pass"))
    central.wait_for(finished(job))
    assert job.state == "success"
    central.wait_for(lambda: daemon.command("status").returncode == 0)


CHATTY = """
import os, time
from pathlib import Path
from airflow.sdk import dag, task

@dag(schedule=None)
def edge():
    @task
    def chats():
        folder = Path(os.environ["FOLDER"])
        print("before")
        while not (folder / "go").exists():
            print("chat " + "x" * 500)
            time.sleep(0.01)
        while not (folder / "room").exists():
            time.sleep(0.05)
        print("after")
    chats()

edge()
"""


def test_a_task_that_prints_onto_a_full_disk_goes_on_and_its_log_tells_of_what_is_missing(
    central: FakeCentral, start: Start, small: Path, tmp_path: Path
) -> None:
    options = {"disk_error": 0, "disk_warning": 0, "outbox_size": 1}
    daemon = real(central, start, tmp_path, dag=CHATTY, env={"FOLDER": str(tmp_path)}, **options)
    job = execute_task(central, "chats")
    central.wait_for(lambda: sum(event.startswith("chat") for event in events(job)) > 20, 90)
    filler = fill(small)
    central.wait_for(lambda: central.last()["sysinfo"]["free_concurrency"] == 0)
    before = len(job.log)
    (tmp_path / "go").touch()
    filler.unlink()
    (tmp_path / "room").touch()
    central.wait_for(finished(job), 60)
    assert job.state == "success", job.end
    said = events(job)
    assert said.index("after") > next(i for i, event in enumerate(said) if "lines of this log are missing" in event)
    assert len(job.log) >= before
    assert daemon.exit_code() is None
