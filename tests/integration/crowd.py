"""Many workers that do nothing but stay connected, in one thread."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from threading import Thread
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from edge_worker.plan import backoff, read_retry_after, returning
from served import FACTS
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from edge_otel.messages import FROM_SERVER, Hello, Welcome, encode

OPEN_WITHIN = 20.0
ARRIVALS = 0.01
"""Seconds between the first connections: only when they all come back they come at once."""


class Crowd:
    """Connects all, and each again when its channel breaks, at the daemon's pace."""

    def __init__(self, number: int, url: str, token: str) -> None:
        self.number = number
        self.connected: set[str] = set()
        self._url = url.replace("http", "ws", 1) + "/v2/channel"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._loop = asyncio.new_event_loop()
        self._all: asyncio.Task[Any] | None = None
        self._thread = Thread(target=self._run, name="crowd")

    def complete(self) -> bool:
        """Return whether everybody is connected."""
        return len(self.connected) == self.number

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(lambda: self._all and self._all.cancel())
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._live())

    async def _live(self) -> None:
        self._all = asyncio.current_task()
        async with asyncio.TaskGroup() as group:
            for number in range(self.number):
                group.create_task(self._stay_connected(f"crowd-{number}"))
                await asyncio.sleep(ARRIVALS)

    async def _stay_connected(self, name: str) -> None:
        attempt, session = 0, str(uuid4())
        while True:
            pause = None
            try:
                await self._connect(name, session)
            except InvalidStatus as refusal:
                pause = read_retry_after(refusal.response.headers.get("Retry-After"))
            except (OSError, EOFError, TimeoutError, ConnectionClosed, InvalidMessage):
                pass
            if name in self.connected:
                self.connected.discard(name)
                attempt = 0
            draw = random.random()
            await asyncio.sleep(backoff(attempt, draw) if pause is None else returning(pause, draw))
            attempt += 1

    async def _connect(self, name: str, session: str) -> None:
        options: Any = {"compression": None, "proxy": None, "open_timeout": OPEN_WITHIN, "close_timeout": 0.1}
        async with connect(self._url, additional_headers=self._headers, **options) as socket:
            hello = {"name": name, "session": session, "state": "starting", "sysinfo": FACTS, "jobs": []}
            await socket.send(encode(Hello.model_validate(hello)))
            async with asyncio.timeout(OPEN_WITHIN):
                assert isinstance(FROM_SERVER.read(await socket.recv()), Welcome)
            self.connected.add(name)
            await socket.wait_closed()
