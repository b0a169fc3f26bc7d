"""Starts job processes: by a zygote's fork, or by a new interpreter for each job."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from edge_worker.faults import LaunchFailed
from edge_worker.forker import Forker
from edge_worker.journal import JobFolder, Started
from edge_worker.processes import identity

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
READY_WITHIN = 120.0
"""Seconds for a zygote to load Airflow: on a slow disk the first import takes tens of seconds."""

GONE_WITHIN = 5.0
"""Seconds in which a zygote that runs nothing goes when it is let go: one that loads may hang."""


class Launcher(Protocol):
    """Starts jobs whose folders are complete."""

    mode: str

    async def launch(self, folder: JobFolder) -> Started:
        """Start the job's process; raises LaunchFailed where none runs."""

    def renew(self, env: Mapping[str, str], idle: float) -> None:
        """Start jobs with this environment from now on; ``idle`` is in seconds, of what waits for jobs."""

    def outdate(self, why: str) -> None:
        """Start no more jobs from what was loaded before now."""

    async def settled(self, folder: JobFolder) -> int | None:
        """Wait until whoever sees the job's process die has said so, or will not; return its exit code where told."""

    def pids(self) -> list[int]:
        """Return the processes that it has started, some of which may have ended."""

    async def close(self) -> None:
        """Let go; running jobs go on."""


class InterpreterLauncher:
    """A new interpreter for each job."""

    mode = "interpreter"

    def __init__(self, python: str, env: Mapping[str, str]) -> None:
        self._command = [python, "-P", str(HERE / "task_run.py")]
        self._env = dict(env)
        self._children: dict[Path, subprocess.Popen[bytes]] = {}

    async def launch(self, folder: JobFolder) -> Started:
        """Start the interpreter; what it imports wrongly shows in the job's result."""
        order = json.loads((folder.path / "launch.json").read_bytes())
        try:
            with (folder.path / "output").open("ab") as output:
                child = subprocess.Popen(
                    [*self._command, str(folder.path)],
                    env=self._env | order["env"],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
        except OSError as error:
            raise LaunchFailed(f"{self._command[0]}: {error.strerror}") from None
        self._children[folder.path] = child
        return Started(child.pid, identity(child.pid), time.time())

    def renew(self, env: Mapping[str, str], idle: float) -> None:
        """Start the next interpreters with this environment."""
        self._env = dict(env)

    def outdate(self, why: str) -> None:
        """Each job has an interpreter of its own."""

    async def settled(self, folder: JobFolder) -> int | None:
        """The child was reaped by the one who waited for it, and knows the code; only its handle is left."""
        if child := self._children.pop(folder.path, None):
            child.poll()
        return None

    def pids(self) -> list[int]:
        """Return the interpreters."""
        return [child.pid for child in self._children.values()]

    async def close(self) -> None:
        """Forget the children, which go on."""
        for child in self._children.values():
            # Keeps Popen from complaining about a child that is meant to outlive it.
            child.returncode = 0
        self._children.clear()


class ZygoteLauncher:
    """Forks from a process that has Airflow loaded; it starts with the first job and goes after an idle time."""

    mode = "zygote"

    def __init__(self, python: str, env: Mapping[str, str], idle: float, errors: Path) -> None:
        self._python = python
        self._env = env
        self._idle = idle
        self._errors = errors
        self._zygote: Forker | None = None
        self._lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._owned: list[Forker] = []
        self._launches = 0
        """That are under way: a zygote that loads runs nothing yet."""

    async def launch(self, folder: JobFolder) -> Started:
        """Fork a supervisor for the job."""
        if self._timer is not None:
            self._timer.cancel()
        self._launches += 1
        try:
            zygote = await self._ready()
            await zygote.fork(str(folder.path))
        finally:
            self._launches -= 1
            self._rest()
        started = folder.started()
        if started is None:
            raise LaunchFailed("the process did not write its pid")
        return started

    def renew(self, env: Mapping[str, str], idle: float) -> None:
        """Have the next job started by a new zygote where the environment is another one."""
        if env != self._env:
            self._env = env
            self.outdate("the environment of tasks has changed")
        self._idle = idle

    def outdate(self, why: str) -> None:
        """Have the next job started by a new zygote. The present one stays until then: it may be starting a job."""
        if self._zygote is not None:
            self._zygote.outdated = why

    async def settled(self, folder: JobFolder) -> int | None:
        """Wait for the zygote to have reaped the job's process; return its exit code."""
        code = None
        for zygote in self._owned:
            if event := zygote.running.get(str(folder.path)):
                await event.wait()
            code = zygote.ended.pop(str(folder.path), code)
        self._rest()
        return code

    def pids(self) -> list[int]:
        """Return the zygotes."""
        return [zygote.process.pid for zygote in self._owned]

    async def close(self) -> None:
        """Let the zygotes go; those with running jobs do so when these have ended."""
        if self._timer is not None:
            self._timer.cancel()
        for zygote in self._owned:
            zygote.retire()
            if zygote.running:
                zygote.process.returncode = 0  # meant to outlive us
                zygote.reader.cancel()
        readers = [zygote.reader for zygote in self._owned]
        if readers:
            await asyncio.wait(readers, timeout=GONE_WITHIN)
        for zygote in self._owned:
            if not zygote.reader.done():
                zygote.process.kill()
                zygote.reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

    async def _ready(self) -> Forker:
        async with self._lock:
            zygote = self._zygote
            if zygote is not None and zygote.usable and (why := zygote.outdated or zygote.unfit(time.monotonic())):
                log.info("zygote %d is replaced: %s", zygote.process.pid, why)
                zygote.retire()
            if zygote is None or not zygote.usable:
                self._owned = [old for old in self._owned if not old.reader.done()]
                try:
                    zygote = self._zygote = Forker(self._python, self._env, self._errors)
                except OSError as error:
                    raise LaunchFailed(f"{self._python}: {error.strerror}") from None
                self._owned.append(zygote)
                log.debug("zygote %d starts", zygote.process.pid)
            try:
                async with asyncio.timeout(READY_WITHIN):
                    await asyncio.shield(zygote.ready)
            except TimeoutError:
                zygote.process.kill()
                raise LaunchFailed(f"the zygote was not ready within {READY_WITHIN:.0f} s") from None
            return zygote

    def _rest(self) -> None:
        """Have the zygote go after a time in which there is nothing to do."""
        if self._zygote is not None and not self._zygote.running and not self._launches:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(self._idle, self._retire_idle)

    def _retire_idle(self) -> None:
        if self._zygote is not None and not self._zygote.running:
            log.debug("zygote %d was idle and goes", self._zygote.process.pid)
            self._zygote.retire()
            self._zygote = None
