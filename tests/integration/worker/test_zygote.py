"""Zygotes that are no good are replaced, and the jobs that they have started go on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from conftest import stub_interpreter, workload
from edge_worker import forker, processes
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
async def place(folder: Path, spoilt: str = "") -> AsyncIterator[Place]:
    env = dict(os.environ) | ({"STUB_ZYGOTE_SPOILT": str(folder / spoilt)} if spoilt else {})
    launcher = ZygoteLauncher(str(stub_interpreter(folder)), env, 60, folder / "zygote.log")
    found = Place(folder, launcher)
    try:
        yield found
    finally:
        await launcher.close()
        for process in found.started:
            processes.kill(process)


def run(folder: Path, do: Callable[[Place], Awaitable[None]], spoilt: str = "") -> None:
    async def within() -> None:
        async with asyncio.timeout(60), place(folder, spoilt) as found:
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
        assert gone(zygote)
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
