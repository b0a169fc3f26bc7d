"""One zygote as the daemon sees it: orders, answers, and whether it is still good."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from edge_worker.faults import LaunchFailed
from edge_worker.limits import MIB
from edge_worker.tasklog import tail

log = logging.getLogger(__name__)

OLDEST = 3600.0
"""Seconds after which a zygote takes no more jobs, so that upgraded packages come to be used."""

GROWTH = 256 * MIB
"""Bytes by which a zygote's memory may grow; each of its jobs would begin with them."""

ANSWER_WITHIN = 30.0
"""Seconds of silence with an order to obey. A fork takes milliseconds, but machines can be very busy."""


class Forker:
    """A zygote's process, and the answers that are awaited from it."""

    def __init__(self, python: str, env: Mapping[str, str], errors: Path) -> None:
        self.errors = errors
        self.born = time.monotonic()
        self.ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.starting: dict[str, asyncio.Future[None]] = {}
        self.running: dict[str, asyncio.Event] = {}
        self.outdated = ""
        """Why it is to start no more jobs."""
        self.ended: dict[str, int] = {}
        """Exit codes of jobs' processes, until somebody asks."""
        self._heard = 0
        """Answers so far."""
        self._first_memory = 0
        """Bytes, when it was ready."""
        self._refused = ""
        """Why it could not fork."""
        self._retired = False
        self._orders = b""
        """What found no room in its pipe yet."""
        with errors.open("wb") as output:
            self.process = subprocess.Popen(
                [python, "-P", str(Path(__file__).with_name("zygote.py"))],
                env=dict(env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )
        assert self.process.stdin is not None
        if sys.platform != "win32":
            # One that does not read must not hold the daemon.
            os.set_blocking(self.process.stdin.fileno(), False)
        self.reader = asyncio.create_task(self._read(), name=f"zygote-{self.process.pid}")

    @property
    def usable(self) -> bool:
        return not self.reader.done() and not self._retired

    def unfit(self, now: float) -> str | None:
        """Return why it should take no more jobs, None where it may; ``now`` is of the monotonic clock."""
        grown = self._memory() - self._first_memory if self._first_memory else 0
        if self._refused:
            return self._refused
        if grown > GROWTH:
            return f"its memory has grown by {grown // MIB} MiB"
        return "its packages may have been upgraded" if now - self.born > OLDEST else None

    async def fork(self, folder: str) -> None:
        """Have the job of this folder started. Raises LaunchFailed.

        A zygote that says nothing at all for a while is killed. The jobs that it has started go on.
        """
        if self.usable:
            self._orders += json.dumps({"folder": folder}).encode() + b"\n"
            self._send()
        if not self.usable:
            raise LaunchFailed("the zygote does not listen")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.starting[folder] = future
        self.running[folder] = asyncio.Event()
        before = -1
        while not future.done():
            if before == self._heard:
                log.warning("zygote %d does not answer and is killed; its jobs go on", self.process.pid)
                self.process.kill()
            before = self._heard
            await asyncio.wait({future}, timeout=ANSWER_WITHIN)
        future.result()

    def _memory(self) -> int:
        try:
            return psutil.Process(self.process.pid).memory_info().rss
        except psutil.Error:
            return 0

    def retire(self) -> None:
        """Give it no more jobs: it goes when its last child has ended."""
        self._retired = True
        self._send()

    def _send(self) -> None:
        """Write the orders for which there is room, and the rest when there is more; close behind the last one."""
        stdin = self.process.stdin
        assert stdin is not None
        if stdin.closed:
            return
        loop = asyncio.get_running_loop()
        loop.remove_writer(stdin)
        try:
            if self._orders:
                self._orders = self._orders[os.write(stdin.fileno(), self._orders) :]
        except BlockingIOError:
            pass
        except OSError:
            # It has died, and its reader will say so: the next launch must not wait for that.
            self._orders, self._retired = b"", True
        if self._orders:
            loop.add_writer(stdin, self._send)
        elif self._retired:
            stdin.close()

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), self.process.stdout)
        try:
            while line := await reader.readline():
                self._hear(json.loads(line))
        finally:
            pipe.close()
            self._orders = b""
            self.retire()
            why = LaunchFailed("; ".join(["the zygote has ended", *tail(self.errors, 5)]))
            awaited: list[asyncio.Future[Any]] = [self.ready, *self.starting.values()]
            for future in awaited:
                if not future.done():
                    future.set_exception(why)
                    future.exception()  # may be awaited by nobody
            for event in self.running.values():
                event.set()
            if not loop.is_closed() and self.process.poll() is None:
                # Its end of the pipe is closed, so it is about to exit; only the reaping is left.
                with suppress(subprocess.TimeoutExpired):
                    await asyncio.to_thread(self.process.wait, 5)

    def _hear(self, answer: dict[str, str]) -> None:
        self._heard += 1
        if "ready" in answer and not self.ready.done():
            self._first_memory = self._memory()
            self.ready.set_result(True)
        elif folder := answer.get("started"):
            if (future := self.starting.pop(folder, None)) and not future.done():
                future.set_result(None)
        elif folder := answer.get("failed"):
            if (future := self.starting.pop(folder, None)) and not future.done():
                future.set_exception(LaunchFailed(answer["error"]))
            if answer.get("refused"):
                self._refused = answer["error"]
            if event := self.running.pop(folder, None):
                event.set()
        elif folder := answer.get("ended"):
            if (future := self.starting.pop(folder, None)) and not future.done():
                future.set_exception(LaunchFailed(f"the process ended at once with code {answer['exit_code']}"))
            self.ended[folder] = int(answer["exit_code"])
            if event := self.running.pop(folder, None):
                event.set()
