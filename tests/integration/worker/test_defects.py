"""Defects of ours, planted: what they end is done again, by this daemon or the next."""

from __future__ import annotations

import shutil
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

SHIPPING = """
from edge_worker import logs
good, broken = logs.LogShipper.{method}, []
async def badly(self, *arguments):
    if not broken:
        broken.append(1)
        raise RuntimeError("this is a defect")
    return await good(self, *arguments)
logs.LogShipper.{method} = badly
"""
"""The first log is lost sight of, once."""

HEARTBEAT = """
import os
from edge_worker import reports
report = reports.report
def badly(*arguments):
    if os.path.exists({flag!r}):
        raise RuntimeError("this is a defect")
    return report(*arguments)
reports.report = badly
"""


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
        f"import asyncio\nfrom edge_worker import patience\npatience.AGAIN = {again}\n{defect}"
    )
    daemon = start(env={"PYTHONPATH": str(broken)}, concurrency=1, kill_grace=0.3, **options)
    daemon.defect = "RuntimeError: this is a defect"
    central.offer(workload(task))
    central.wait_for(lambda: "this is a defect" in daemon.said)
    return daemon


def seen_through(central: FakeCentral, daemon: Daemon, job: FakeJob) -> None:
    """Wait for the job's right end."""
    central.wait_for(finished(job))
    assert (job.state, bytes(job.log)) == ("success", b"once\n")
    central.wait_for(lambda: daemon.folders() == [])


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


def test_its_folder_may_go_meanwhile(central: FakeCentral, start: Start, tmp_path: Path, launch: str) -> None:
    go = tmp_path / "go"
    daemon = lose(start, central, tmp_path, waiting(go), LONG, launch=launch)
    (job,) = central.jobs.values()
    pid = running(central, daemon)
    shutil.rmtree(daemon.folders()[0])
    central.wait_for(lambda: daemon.said.count("adopted, pid") == 1)
    beats(central)
    assert not gone(pid)
    assert [one["slots"] for one in central.last()["jobs"]] == [1]
    go.touch()
    central.wait_for(lambda: job.end and daemon.folders() == [])


@pytest.mark.parametrize("method", ["_take_turn", "_due"])
def test_a_log_is_followed_again(central: FakeCentral, start: Start, tmp_path: Path, launch: str, method: str) -> None:
    go = tmp_path / "go"
    daemon = lose(start, central, tmp_path, waiting(go), SHORT, SHIPPING.format(method=method), launch=launch)
    (job,) = central.jobs.values()
    central.wait_for(lambda: bytes(job.log) == b"once\n")
    go.touch()
    seen_through(central, daemon, job)


def test_a_log_is_followed_again_by_the_next_daemon(
    central: FakeCentral, start: Start, tmp_path: Path, launch: str
) -> None:
    go = tmp_path / "go"
    first = start(launch=launch)
    job = central.offer(workload(waiting(go)))
    central.wait_for(lambda: bytes(job.log) == b"once\n")
    first.process.kill()
    first.process.wait(10)
    daemon = lose(start, central, tmp_path, "pass", SHORT, SHIPPING.format(method="_resume"), launch=launch)
    go.touch()
    seen_through(central, daemon, job)


def test_a_cancelled_job_holds_its_slot_until_it_has_ended_also_with_the_next_daemon(
    central: FakeCentral, start: Start, launch: str
) -> None:
    first = start(launch=launch, kill_grace=600)
    job = central.offer(workload(STUBBORN))
    pid = running(central, first)
    central.wait_for(lambda: bytes(job.log) == b"begun\n")
    connected(central).send(type="cancel", id=job.id, claim=job.offer["claim"])
    central.wait_for((first.folders()[0] / "report.json").exists)
    first.process.kill()
    first.process.wait(10)
    daemon = start(launch=launch, kill_grace=600, concurrency=1)
    other = central.offer(workload("pass"))
    beats(central)
    assert [one["slots"] for one in central.last()["jobs"]] == [1]
    assert other.state == "queued"
    psutil.Process(pid).kill()
    central.wait_for(finished(other))
    central.wait_for(lambda: daemon.folders() == [])


def test_a_defect_ends_the_daemon_also_while_it_drains(
    central: FakeCentral, start: Start, tmp_path: Path, launch: str
) -> None:
    broken, flag, go = tmp_path / "broken", tmp_path / "flag", tmp_path / "go"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(HEARTBEAT.format(flag=str(flag)))
    daemon = start(launch=launch, env={"PYTHONPATH": str(broken)})
    job = central.offer(workload(waiting(go)))
    pid = running(central, daemon)
    daemon.process.terminate()
    central.wait_for(lambda: central.last()["state"] == "terminating")
    flag.touch()
    assert daemon.process.wait(30) == 1
    assert not gone(pid)
    assert daemon.said.endswith("RuntimeError: this is a defect\n")
    daemon.log.write_text("")
    start(launch=launch)
    go.touch()
    central.wait_for(finished(job))
