"""A job that takes too much ends, and no other."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from conftest import Start, finished, workload
from edge_worker import kin
from edge_worker.guard import used
from fake_server import FakeCentral

pytestmark = pytest.mark.parametrize("transport", ["channel"])

FORK = """
def fork(do):
    if os.fork() == 0:
        do()
        os._exit(0)
"""


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
@pytest.mark.parametrize("where", ["task", "supervisor"])
def test_task_that_uses_too_much_memory_ends_alone(
    central: FakeCentral, start: Start, tmp_path: Path, launch: str, where: str
) -> None:
    go = tmp_path / "go"
    start(launch=launch, job_memory=200)
    modest = central.offer(workload(f"wait_for_file({str(go)!r}); log(b'fine')"))
    eat = "lambda: (bytearray(os.urandom(1024) * 1024 * 300), wait_for_file('/nonexistent'))"
    run = f"fork({eat}); code = os.waitstatus_to_exitcode(os.wait()[1])" if where == "task" else f"({eat})()"
    greedy = central.offer(workload(f"{FORK}\n{run}"))
    central.wait_for(finished(greedy))
    assert greedy.end is not None
    assert (greedy.state, greedy.end["exit_code"]) == ("failed", -signal.SIGKILL)
    assert "more than the 200 MiB that --job-memory allows" in greedy.end["error"]
    assert greedy.end["error"] in bytes(greedy.log).decode()
    go.touch()
    central.wait_for(finished(modest))
    assert bytes(modest.log) == b"fine"


def test_fork_bomb_ends_alone(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    """Each of its processes has two children and stays; a bound that the limit is far below protects the machine."""
    go, grown = tmp_path / "go", tmp_path / "grown"
    grown.mkdir()
    start(launch="zygote", job_processes=30)
    modest = central.offer(workload(f"wait_for_file({str(go)!r}); log(b'fine')"))
    bomb = central.offer(
        workload(
            f"""{FORK}
def explode(depth):
    os.setsid()
    Path({str(grown)!r}, str(os.getpid())).touch()
    for _ in range(2):
        if depth < 8:
            fork(lambda: explode(depth + 1))
    wait_for_file('/nonexistent')
fork(lambda: explode(1))
code = os.waitstatus_to_exitcode(os.wait()[1])
"""
        )
    )
    central.wait_for(finished(bomb))
    assert bomb.end is not None
    assert bomb.state == "failed"
    assert "more than the 30 that --job-processes allows" in bomb.end["error"]
    parts = [int(path.name) for path in grown.iterdir()]
    assert len(parts) > 30
    assert [pid for pid in parts if psutil.pid_exists(pid)] == []
    go.touch()
    central.wait_for(finished(modest))
    assert bytes(modest.log) == b"fine"


def test_job_runs_as_nice_as_it_was_asked_to(central: FakeCentral, start: Start) -> None:
    start(launch="zygote", job_nice=7)
    job = central.offer(workload("log(f'{os.nice(0)} {Path(\"/proc/self/oom_score_adj\").read_text()}'.encode())"))
    central.wait_for(finished(job))
    nice, score = bytes(job.log).split()
    assert int(nice) == os.nice(0) + 7
    # So that a machine without memory loses a task, and not its worker.
    assert int(score) >= 300


@contextmanager
def forked(count: int) -> Iterator[list[int]]:
    """Processes that share all of this one's memory."""
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        pids.append(pid)
    try:
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_memory_that_processes_share_counts_once(transport: str) -> None:
    held = bytearray(os.urandom(1024) * 1024 * 200)
    with forked(3) as pids:
        among = kin.table()
        members = [among[pid] for pid in (os.getpid(), *pids)]
        resident = sum(seen.memory for seen in members)
        assert resident > 3 * len(held)
        assert len(held) * 0.9 < used(members) < resident / 2


def test_look_at_all_processes_is_cheap(transport: str) -> None:
    with forked(100):
        begun = time.process_time()
        among = kin.table()
        assert (time.process_time() - begun) / len(among) < 0.0005
