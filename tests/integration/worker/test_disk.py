"""A state folder that is full, read-only or removed while jobs run: they go on, and no hand is needed afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Daemon, Start, finished, workload
from edge_worker.journal import JobFolder
from fake_server import FakeCentral, FakeJob
from test_airflow import events, execute_callback, execute_task, real
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
) -> None:
    """Harm the state folder while a job runs, and see that it ends well, that none is taken, and that all heals."""

    def nothing_left(daemon: Daemon) -> bool:
        return daemon.folders() == []

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

    sees_to_it(central, daemon, job, tmp_path, harm, heal)
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


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_a_job_that_ends_where_the_daemon_may_not_look(
    central: FakeCentral, start: Start, tmp_path: Path, launch: str
) -> None:
    rights = "-dac_override,-dac_read_search"
    daemon = start(by=("setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"), launch=launch)
    job = running(central, tmp_path)
    daemon.state_dir.chmod(0)
    try:
        central.wait_for(lambda: "cannot be written" in daemon.said)
        (tmp_path / "go").touch()
        central.wait_for(finished(job))
    finally:
        daemon.state_dir.chmod(0o700)
    assert job.state == "success", job.end
    central.wait_for(lambda: "can be written again" in daemon.said)
    later = central.offer(workload("pass"))
    central.wait_for(finished(later))
    assert later.state == "success"


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


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
@pytest.mark.parametrize("end", ["code = 1", "os.kill(os.getpid(), signal.SIGKILL)"], ids=["fails", "killed"])
def test_the_log_of_a_job_that_did_not_end_well_tells_of_its_removed_folder_too(
    central: FakeCentral, start: Start, tmp_path: Path, launch: str, end: str
) -> None:
    daemon = start(launch=launch)
    hold = "log(b'begun\\n'); held = open(next(folder.rglob('*.log')), 'ab', 0)"
    job = central.offer(workload(f"{hold}; wait_for_file({str(tmp_path / 'go')!r}); held.write(b'later\\n'); {end}"))
    central.wait_for(lambda: job.log)
    shutil.rmtree(daemon.state_dir)
    (tmp_path / "go").touch()
    central.wait_for(finished(job))
    assert job.state == "failed"
    # The file was open here, too.
    assert job.log.startswith(b"begun\nlater\n")
    assert job.log.count(b"folder of this task was removed") == 1
    assert job.log.count(b"ended with code 1" if end == "code = 1" else b"signal 9") == 1
    central.wait_for(lambda: "is made anew" in daemon.said)
    made = [path for path in (daemon.state_dir, *daemon.state_dir.rglob("*")) if path.is_dir()]
    assert {path.stat().st_mode & 0o077 for path in made} == {0}


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


def hang(daemon: Daemon) -> Path:
    """Have the disk not answer, as far as it is looked at; return what hangs until somebody reads it."""
    pipe = daemon.state_dir / ".writable"
    # The daemon makes and removes a file of that name.
    with suppress(FileExistsError):
        os.mkfifo(pipe)
    return pipe


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_a_disk_that_does_not_answer(central: FakeCentral, start: Start, tmp_path: Path, launch: str) -> None:
    daemon = start(launch=launch, disk_error=0, disk_warning=0)
    job = running(central, tmp_path)
    central.wait_for(lambda: hang(daemon) and "cannot be written: its disk does not answer" in daemon.said)
    for _ in range(2):
        assert "its disk does not answer" in daemon.command("status", "--check", "ready").stdout
    (tmp_path / "go").touch()
    central.wait_for(finished(job))
    assert job.state == "success", job.end
    central.wait_for(lambda: central.last()["sysinfo"]["status"] == 40)
    with hang(daemon).open("rb"):
        central.wait_for(lambda: "can be written again" in daemon.said)
    later = central.offer(workload("pass"))
    central.wait_for(finished(later))
    central.wait_for(lambda: hang(daemon) and daemon.said.count("its disk does not answer") == 2)
    daemon.process.terminate()
    assert daemon.process.wait(20) == 0
    assert central.last()["state"] == "offline"


def test_threads_that_hang_do_not_hold_the_exit(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    hanging, begun = tmp_path / "hanging", tmp_path / "begun"
    hanging.mkdir()
    # All that the event loop has, so that nothing else gets one.
    (hanging / "sitecustomize.py").write_text(
        "import threading\n"
        "from pathlib import Path\n"
        "from edge_worker import daemon, host, kin\n"
        "table = kin.table\n"
        "def hang(*_):\n"
        "    if threading.current_thread() is threading.main_thread():\n"
        "        return table()\n"
        f"    with Path({str(begun)!r}).open('a') as file:\n"
        "        file.write('x')\n"
        "    threading.Event().wait()\n"
        "kin.table = host.TaskInterpreter.mark = hang\n"
        "daemon.STOPPED_WITHIN = 0.5\n"
    )
    daemon = start(env={"PYTHONPATH": str(hanging)})
    # As if a child had died: it looks.
    daemon.process.send_signal(signal.SIGCHLD)
    central.wait_for(lambda: begun.exists() and len(begun.read_text()) >= 2)
    daemon.process.terminate()
    assert daemon.process.wait(20) == 0
    assert central.last()["state"] == "offline"


CHATTY = """
import os, time
from itertools import count
from pathlib import Path
from airflow.sdk import dag, task

def chats():
    folder = Path(os.environ["FOLDER"])
    for number in count():
        # Longer than a page, or a buffer, now and then.
        print("chat", number, "x" * (9_000 if number % 10 == 0 else 5_000 if number % 3 == 0 else 300))
        with (folder / "printed").open("a") as file:
            file.write("x")
        if (folder / "go").exists():
            return
        time.sleep(0.01)

@dag(schedule=None)
def edge():
    task(chats)()

edge()
"""

MISSING = "lines of this log are missing here"


@pytest.mark.parametrize("kind", ["task", "callback"])
@pytest.mark.parametrize("room", [True, False], ids=["room", "none"])
def test_what_prints_onto_a_full_disk_goes_on_and_its_log_tells_of_what_is_missing(
    central: FakeCentral, start: Start, small: Path, tmp_path: Path, kind: str, room: bool
) -> None:
    def printed() -> int:
        return (tmp_path / "printed").stat().st_size

    def said(text: str) -> int:
        return sum(text in event for event in events(job))

    options = {"disk_error": 0, "disk_warning": 0, "outbox_size": 1}
    daemon = real(central, start, tmp_path, dag=CHATTY, env={"FOLDER": str(tmp_path)}, **options)
    job = execute_task(central, "chats") if kind == "task" else execute_callback(central, "edge.chats")
    for gaps in (1, 2, 3):
        central.wait_for(lambda: said("chat ") > 10, 90)
        filler = fill(small)
        # More than can be on its way from the task to its supervisor.
        enough = printed() + 200
        central.wait_for(lambda enough=enough: printed() > enough, 60)
        if gaps == 3 and not room:
            # It ends like this, and cannot say what is missing then.
            break
        filler.unlink()
        central.wait_for(lambda gaps=gaps: said(MISSING) >= gaps, 60)
    (tmp_path / "go").touch()
    central.wait_for(finished(job), 60)
    assert job.state == "success", job.end
    told: list[int] = []
    before = ""
    for event in events(job):
        if event.startswith("chat "):
            told.append(int(event.split()[1]))
        elif MISSING in event:
            assert before.startswith("chat "), "a gap is told once"
            told += range(told[-1] + 1, told[-1] + 1 + int(event.split()[0]))
        before = event
    assert told == list(range(printed() if room else len(told)))
    assert daemon.exit_code() is None
