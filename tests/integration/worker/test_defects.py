"""A job of which a defect of ours has lost sight."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from conftest import Daemon, Start, finished, workload
from fake_server import FakeCentral, FakeJob
from test_channel import STUBBORN, beats, connected
from test_jobs import gone, running

pytestmark = [
    pytest.mark.parametrize("launch", ["zygote", "interpreter"]),
    # What is cancelled is told by the channel alone.
    pytest.mark.parametrize("transport", ["channel"]),
]

LONG, SHORT = 3.0, 0.2
"""Seconds until the job is taken up again: with and without time to do something before."""


START = """
from edge_worker import starting
start, broken = starting.start, []
async def start_badly(site, folder, *arguments):
    process = await start(site, folder, *arguments)
    if not broken:
        broken.append(1)
        while folder.started() is None:
            await asyncio.sleep(0.01)
        raise RuntimeError("this is a defect")
    return process
starting.start = start_badly
"""
"""Sight of the first job is lost as soon as it has started."""

END = """
from edge_worker import stopping
async def result_badly(*arguments):
    raise RuntimeError("this is a defect")
stopping.result = result_badly
"""
"""Sight of each job is lost when it has ended, again and again."""


def lose(
    start: Start,
    central: FakeCentral,
    folder: Path,
    task: str,
    again: float,
    defect: str = START,
    **options: str | float,
) -> Daemon:
    """Start a daemon with the defect, and a job that meets it."""
    broken = folder / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        f"import asyncio\nfrom edge_worker import loop\nloop.AGAIN = {again}\n{defect}"
    )
    daemon = start(env={"PYTHONPATH": str(broken)}, concurrency=1, kill_grace=0.3, **options)
    central.offer(workload(task))
    central.wait_for(lambda: "this is a defect" in daemon.said)
    return daemon


def seen_through(central: FakeCentral, daemon: Daemon, job: FakeJob) -> None:
    """Wait for the job's right end, and expect the defect here, as nowhere else."""
    central.wait_for(finished(job))
    assert (job.state, bytes(job.log)) == ("success", b"once\n")
    central.wait_for(lambda: daemon.folders() == [])
    daemon.log.write_text("")


def waiting(go: Path) -> str:
    """A task that leaves one line and waits."""
    return f"log(b'once\\n'); wait_for_file({str(go)!r})"


def test_it_is_taken_up_again(central: FakeCentral, start: Start, tmp_path: Path, launch: str) -> None:
    go = tmp_path / "go"
    daemon = lose(start, central, tmp_path, waiting(go), SHORT, launch=launch)
    go.touch()
    seen_through(central, daemon, *central.jobs.values())
    assert daemon.exit_code() is None


def test_it_holds_its_slot_and_a_drain_waits_for_it(
    central: FakeCentral, start: Start, tmp_path: Path, launch: str
) -> None:
    go = tmp_path / "go"
    daemon = lose(start, central, tmp_path, waiting(go), LONG, launch=launch)
    job, other = *central.jobs.values(), central.offer(workload("pass"))
    beats(central)
    assert other.state == "queued"
    assert [one["slots"] for one in central.last()["jobs"]] == [1]
    daemon.process.terminate()
    central.wait_for(lambda: central.last()["state"] == "terminating")
    go.touch()
    assert daemon.process.wait(30) == 0
    seen_through(central, daemon, job)
    assert other.state == "queued"


def test_it_can_be_cancelled(central: FakeCentral, start: Start, tmp_path: Path, launch: str) -> None:
    daemon = lose(start, central, tmp_path, STUBBORN, LONG, launch=launch)
    (job,) = central.jobs.values()
    pid = running(central, daemon)
    connected(central).send(type="cancel", id=job.id, claim=job.offer["claim"])
    central.wait_for(lambda: daemon.folders() == [])
    assert gone(pid)
    assert job.end["state"] == "failed"
    daemon.log.write_text("")


def test_it_can_be_stopped(central: FakeCentral, start: Start, tmp_path: Path, launch: str) -> None:
    daemon = lose(start, central, tmp_path, STUBBORN, LONG, launch=launch)
    (job,) = central.jobs.values()
    pid = running(central, daemon)
    for _ in range(2):
        daemon.process.terminate()
        central.wait_for(lambda: central.last()["state"] == "terminating")
    assert daemon.process.wait(30) == 0
    assert gone(pid)
    assert job.state == "failed"
    assert "Stopped by the edge worker" in job.end["error"]
    daemon.log.write_text("")


def test_its_processes_are_not_taken_for_strangers(
    central: FakeCentral, start: Start, tmp_path: Path, launch: str
) -> None:
    go = tmp_path / "go"
    daemon = lose(start, central, tmp_path, waiting(go), LONG, launch=launch)
    (job,) = central.jobs.values()
    pid = running(central, daemon)
    for child in psutil.Process(daemon.pid).children():
        if child.pid != pid:
            # The zygote, if there is one: its children come to the daemon.
            child.kill()
    central.wait_for(lambda: daemon.said.count("adopted, pid") == 1)
    assert not gone(pid)
    go.touch()
    seen_through(central, daemon, job)


def test_no_drain_waits_for_one_that_is_lost_sight_of_each_time(
    central: FakeCentral, start: Start, tmp_path: Path, launch: str
) -> None:
    daemon = lose(start, central, tmp_path, "pass", SHORT, END, launch=launch)
    (job,) = central.jobs.values()
    central.wait_for(lambda: daemon.said.count("this is a defect") > 2)
    daemon.process.terminate()
    assert daemon.process.wait(60) == 0
    assert job.end is None
    assert len(daemon.folders()) == 1, "the next daemon sees it through"
    daemon.log.write_text("")
