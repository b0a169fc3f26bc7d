"""Hears what the database tells of: on PostgreSQL a queued job, or a worker whose row has changed."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

from edge_otel.api.assigner import Assigner
from edge_otel.api.pulse import Pulse
from edge_otel.models.database import DatabaseFailure
from edge_otel.models.session import new_session
from edge_otel.models.wakeup import JOBS, WORKER, Listener, announce

log = logging.getLogger(__name__)

PROBE_INTERVAL = 15.0
"""Seconds between words to ourselves: a connection pool in between, or a dead link, makes deaf without an error."""
HEARD_WITHIN = 5.0
AGAIN_AFTER = 5.0
"""Seconds until a connection that failed is opened again."""


class Listening:
    """One loop. While it hears nothing, the assigner looks for itself."""

    def __init__(self, assigner: Assigner, pulse: Pulse) -> None:
        self._assigner = assigner
        self._pulse = pulse
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="edge-listen")
        self._probe = ""
        self._heard = asyncio.Event()
        self._broken = asyncio.Event()

    async def run(self) -> None:
        """Listen until cancelled; return where the database has no way to tell."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                listener = await loop.run_in_executor(self._thread, Listener.open)
                if listener is None:
                    return
                try:
                    await self._listen(listener)
                finally:
                    listener.close()
            except DatabaseFailure as failure:
                log.debug("The database cannot be listened to: %s", failure.orig)
            if self._assigner.told:
                log.warning("The database does not tell of new jobs any more; looking for them until it does.")
                self._assigner.told = False
                self._assigner.wake()
            await asyncio.sleep(AGAIN_AFTER)

    async def _listen(self, listener: Listener) -> None:
        """Return when nothing is heard any more."""
        loop = asyncio.get_running_loop()
        self._broken.clear()
        loop.add_reader(listener.fileno(), self._read, listener)
        try:
            while not self._broken.is_set():
                self._heard.clear()
                self._probe = f"probe:{uuid4()}"
                await loop.run_in_executor(self._thread, _say, self._probe)
                async with asyncio.timeout(HEARD_WITHIN):
                    await self._heard.wait()
                self._assigner.told = True
                try:
                    async with asyncio.timeout(PROBE_INTERVAL):
                        await self._broken.wait()
                except TimeoutError:
                    pass
        except TimeoutError:
            return
        finally:
            loop.remove_reader(listener.fileno())

    def _read(self, listener: Listener) -> None:
        try:
            payloads = listener.drain()
        except Exception as error:  # noqa: BLE001 - each driver has errors of its own
            log.debug("The database cannot be listened to: %s", error)
            asyncio.get_running_loop().remove_reader(listener.fileno())
            self._broken.set()
            return
        for payload in payloads:
            if payload == JOBS:
                self._assigner.wake()
            elif payload.startswith(WORKER):
                self._pulse.note(payload.removeprefix(WORKER))
            elif payload == self._probe:
                self._heard.set()

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _say(payload: str) -> None:
    with new_session() as session:
        announce(session, payload)
