"""Zygotes that are no good are replaced, and the jobs that they have started go on."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from conftest import stub_interpreter, workload
from edge_worker import forker, launch, processes
from edge_worker.faults import LaunchFailed
from edge_worker.journal import JobFolder, Started, Ticket
from edge_worker.launch import ZygoteLauncher
from test_jobs import gone


class Place:
    """A launcher and the jobs that it has started."""

    def __init__(self, folder: Path, launcher: ZygoteLauncher) -> None:
        self.folder = folder
        self.launcher = launcher
        self.started: list[Started] = []

    def job(self, do: str = "wait_for_file(folder / 'go')") -> JobFolder:
        id_ = str(uuid4())
        found = JobFolder(self.folder / id_)
        found.open(Ticket(id_, 1, "d", "t", "r", -1, 1, 1, "default"), json.dumps(workload(do)))
        env = {"AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(found.path)}
        found.order({"worker": "w", "server": "", "env": env, "log_file": None, "grace": 0.1})
        return found

    async def launch(self, folder: JobFolder) -> Started:
        process = await self.launcher.launch(folder)
        self.started.append(process)
        return process

    async def run(self) -> Started:
        """Run a job to its end."""
        folder = self.job("pass")
        process = await self.launch(folder)
        await processes.ended(process)
        await self.launcher.settled(folder)
        return process

    async def see_through(self, folder: JobFolder) -> int | None:
        """Let a job go on to its end; return its exit code."""
        (folder.path / "go").touch()
        await processes.ended(self.started[0])
        await self.launcher.settled(folder)
        result = folder.result()
        assert result is not None
        return result.exit_code


@asynccontextmanager
async def place(folder: Path, spoilt: str = "", idle: float = 60) -> AsyncIterator[Place]:
    env = dict(os.environ) | ({"STUB_ZYGOTE_SPOILT": str(folder / spoilt)} if spoilt else {})
    launcher = ZygoteLauncher(str(stub_interpreter(folder)), env, idle, folder / "zygote.log")
    found = Place(folder, launcher)
    try:
        yield found
    finally:
        await launcher.close()
        for process in found.started:
            processes.kill(process)


def run(folder: Path, do: Callable[[Place], Awaitable[None]], spoilt: str = "", idle: float = 60) -> None:
    async def within() -> None:
        async with asyncio.timeout(60), place(folder, spoilt, idle) as found:
            await do(found)

    asyncio.run(within())


def test_zygote_that_does_not_answer_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forker, "ANSWER_WITHIN", 0.5)

    async def do(here: Place) -> None:
        folder = here.job()
        await here.launch(folder)
        [zygote] = here.launcher.pids()
        os.kill(zygote, signal.SIGSTOP)
        with pytest.raises(LaunchFailed, match="the zygote has ended"):
            await here.launch(here.job())
        while not gone(zygote):
            await asyncio.sleep(0.01)
        await here.run()
        assert here.launcher.pids()[-1] != zygote
        assert await here.see_through(folder) == 0

    run(tmp_path, do)


def test_zygote_that_cannot_fork_is_replaced(tmp_path: Path) -> None:
    async def do(here: Place) -> None:
        folder = here.job()
        with pytest.raises(LaunchFailed, match="the zygote cannot fork: No such file or directory"):
            await here.launch(folder)
        [zygote] = here.launcher.pids()
        await here.launch(folder)
        assert here.launcher.pids() != [zygote]
        assert await here.see_through(folder) == 0

    run(tmp_path, do, "cannot-fork")


def test_zygote_that_grows_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forker, "GROWTH", 20 * 1024 * 1024)

    async def do(here: Place) -> None:
        folder = here.job()
        await here.launch(folder)
        [zygote] = here.launcher.pids()
        await here.run()
        await here.run()
        assert here.launcher.pids()[0] == zygote
        assert len(here.launcher.pids()) == 2
        assert await here.see_through(folder) == 0

    run(tmp_path, do, "grows")


def test_healthy_zygote_is_kept(tmp_path: Path) -> None:
    async def do(here: Place) -> None:
        await here.run()
        [zygote] = here.launcher.pids()
        await here.run()
        assert here.launcher.pids() == [zygote]

    run(tmp_path, do)


def test_second_launch_of_a_job_changes_nothing(tmp_path: Path) -> None:
    async def do(here: Place) -> None:
        folder = here.job()
        first = await here.launch(folder)
        with pytest.raises(LaunchFailed, match="has run in this folder already"):
            await here.launcher.launch(folder)
        await here.run()
        assert folder.result() is None
        assert folder.started() == first
        os.kill(first.pid, signal.SIGKILL)
        await processes.ended(first)
        # The zygote has told of the second, and so of no end that could be waited for.
        while (result := folder.result()) is None:
            await asyncio.sleep(0.02)
        assert result.exit_code == -signal.SIGKILL

    run(tmp_path, do)


def test_what_a_library_has_started_in_the_zygote_is_not_taken_for_what_a_job_has_left(tmp_path: Path) -> None:
    async def do(here: Place) -> None:
        await here.run()
        await here.run()
        helper = int((tmp_path / "has-a-helper").read_text())
        assert not gone(helper)
        os.kill(helper, signal.SIGKILL)

    run(tmp_path, do, "has-a-helper")


def test_zygote_whose_death_nobody_has_seen_fails_one_launch(tmp_path: Path) -> None:
    async def do(here: Place) -> None:
        await here.run()
        [zygote] = here.launcher.pids()
        os.kill(zygote, signal.SIGKILL)
        # Blocking: the loop has not turned when the jobs come.
        os.waitid(os.P_PID, zygote, os.WEXITED | os.WNOWAIT)
        folders = [here.job("pass") for _ in range(3)]
        found = await asyncio.gather(*map(here.launch, folders), return_exceptions=True)
        assert [type(one) for one in found] == [LaunchFailed, Started, Started]
        await here.launch(folders[0])
        assert len(here.launcher.pids()) == 2

    run(tmp_path, do)


def test_retry_of_a_launch_that_met_a_dead_zygote_starts_another_at_once(tmp_path: Path) -> None:
    async def do(here: Place) -> None:
        await here.run()
        [zygote] = here.launcher.pids()
        os.kill(zygote, signal.SIGKILL)
        os.waitid(os.P_PID, zygote, os.WEXITED | os.WNOWAIT)
        folder = here.job("pass")
        with pytest.raises(LaunchFailed, match="the zygote does not listen"):
            await here.launch(folder)
        await here.launch(folder)

    run(tmp_path, do)


def test_more_orders_than_a_pipe_holds_are_obeyed_when_the_zygote_reads_again(tmp_path: Path) -> None:
    async def do(here: Place) -> None:
        await here.run()
        [zygote] = here.launcher.pids()
        stdin = here.launcher._owned[0].process.stdin
        assert stdin is not None
        room = fcntl.fcntl(stdin, fcntl.F_SETPIPE_SZ, 4096)
        folders = [here.job("pass") for _ in range(room // len(str(tmp_path)))]
        os.kill(zygote, signal.SIGSTOP)
        launches = [asyncio.create_task(here.launch(folder)) for folder in folders]
        done, _ = await asyncio.wait(launches, timeout=0)
        assert not done
        # Who replaces it does not take its orders away from it.
        here.launcher.outdate("packages")
        await here.run()
        os.kill(zygote, signal.SIGCONT)
        await asyncio.gather(*launches)

    run(tmp_path, do)


def test_zygote_that_loads_for_a_job_is_not_idle_when_another_ends(tmp_path: Path) -> None:
    async def do(here: Place) -> None:
        folder = here.job("pass")
        launch = asyncio.create_task(here.launch(folder))
        while not (tmp_path / "loads-until-told").exists():
            await asyncio.sleep(0.02)
        # As of a job that was adopted.
        await here.launcher.settled(here.job())
        # Later than the moment at which it would go.
        await asyncio.sleep(0.001)
        (tmp_path / "loaded").touch()
        await launch
        [zygote] = here.launcher.pids()
        await processes.ended(here.started[0])
        await here.launcher.settled(folder)
        while not gone(zygote):
            await asyncio.sleep(0.02)

    run(tmp_path, do, "loads-until-told", idle=0)


def test_idle_zygote_goes_also_after_a_launch_that_failed(tmp_path: Path) -> None:
    async def do(here: Place) -> None:
        folder = here.job("pass")
        (folder.path / "process.json").mkdir()
        with pytest.raises(LaunchFailed):
            await here.launch(folder)
        [zygote] = here.launcher.pids()
        while not gone(zygote):
            await asyncio.sleep(0.02)

    run(tmp_path, do, idle=0)


def test_launcher_does_not_wait_for_a_zygote_that_hangs_with_nothing_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "GONE_WITHIN", 0.1)

    async def do(here: Place) -> None:
        starting = asyncio.create_task(here.launch(here.job()))
        while not (tmp_path / "loads-until-told").exists():
            await asyncio.sleep(0.02)
        [zygote] = here.launcher.pids()
        starting.cancel()
        await here.launcher.close()
        assert gone(zygote)

    run(tmp_path, do, "loads-until-told")
