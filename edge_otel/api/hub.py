"""The channels of this process: who is connected, what they say, and the loops that serve them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import uuid4

from edge_otel.api import refusals, registration
from edge_otel.api.assigner import Assigner
from edge_otel.api.auth import Principal, of_token
from edge_otel.api.link import JobKey, Link
from edge_otel.api.listening import Listening
from edge_otel.api.log_files import Writer
from edge_otel.api.pulse import Pulse
from edge_otel.api.recorder import Recorder
from edge_otel.errors import EdgeError, SessionReplaced, TooBusy
from edge_otel.messages import CLOSED, Accept, Bye, Cancel, Decline, Ended, Error, Heartbeat, Hello, Stale, Welcome
from edge_otel.models import fleet
from edge_otel.models.reports import Report
from edge_otel.models.session import hasty_session
from edge_otel.settings import Settings
from edge_otel.state import JobState
from edge_otel.telemetry import context, counters
from edge_otel.telemetry.spans import Recorder as Spans
from edge_otel.wire import WorkerReply

log = logging.getLogger(__name__)

HANDSHAKES = 4
"""Registrations at a time: a whole fleet that connects at once must leave the database to the others."""
MAX_HANDSHAKES_WAITING = 128
"""Upgrades beyond these are told to come again later."""
SPREAD, SPREAD_PER_WORKER = 8.0, 0.01
"""Most seconds, and seconds for each, over which workers spread when this server tells them that it goes."""
LEAVE_WITHIN = 3.0
"""Seconds at the end for reports that wait to be written, and for goodbyes."""
AFTER_DEFECT = 1.0
"""Seconds until a loop that failed goes on."""

_HEARTBEATS = counters.HEARTBEATS.labels("channel")

R = TypeVar("R")


class Hub:
    """One per process. All of it runs in the server's event loop; the database is asked in threads."""

    def __init__(self, settings: Settings, writer: Writer, spans: Spans) -> None:
        self._settings = settings
        self.links: dict[str, Link] = {}
        self._handshaking = 0
        self._registering: set[str] = set()
        self._handshakes = ThreadPoolExecutor(HANDSHAKES, thread_name_prefix="edge-handshake")
        self.assigner = Assigner(self.links, settings, spans, self._report)
        self.recorder = Recorder(writer, self.assigner.wake)
        self.pulse = Pulse(self.links, settings, spans, refuse=self.refuse, cancel=self._cancel)
        self.listening = Listening(self.assigner, self.pulse)
        self._tasks: list[asyncio.Task[None]] = []
        self._leaving = False

    @property
    def running(self) -> bool:
        """Whether workers are served."""
        return bool(self._tasks) and not self._leaving

    def start(self) -> None:
        """Start the loops, in the running event loop."""
        loops: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "assign": self.assigner.run,
            "record": self.recorder.run,
            "beat": self.pulse.run,
            "look": self.pulse.run_looks,
            "listen": self.listening.run,
        }
        self._tasks = [asyncio.create_task(keep(name, run), name=f"edge-{name}") for name, run in loops.items()]

    def leave(self) -> None:
        """Take no more workers, and send those that are here elsewhere."""
        if self._leaving:
            return
        self._leaving = True
        for link in self.links.values():
            after = random.uniform(0.0, min(SPREAD, len(self.links) * SPREAD_PER_WORKER))  # noqa: S311
            link.close(Bye(reason="This API server goes away.", reconnect_after=round(after, 2)))

    async def stop(self) -> None:
        """End the loops; what was reported and can be written is."""
        self.leave()
        try:
            async with asyncio.timeout(LEAVE_WITHIN):
                await self.recorder.drained()
                await self.pulse.flush()
        except TimeoutError:
            log.warning("Some reports could not be written before the end; the workers say them again.")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for part in (self.recorder, self.assigner, self.pulse, self.listening):
            part.close()
        self._handshakes.shutdown(wait=False, cancel_futures=True)

    async def authenticate(self, authorization: str | None) -> Principal:
        """Return who asks for a channel. Raises Forbidden, or TooBusy with how long to wait."""
        if not self.running:
            raise TooBusy("This API server goes away. Connect again.", retry_after=1)
        if len(self.links) >= self._settings.channel_limit:
            raise TooBusy(f"This API server has {len(self.links)} channels, its [edge] channel_limit.", retry_after=10)
        if self._handshaking >= MAX_HANDSHAKES_WAITING:
            raise TooBusy(retry_after=random.randint(2, 10))  # noqa: S311

        return await self._handshake(lambda: of_token(authorization))

    async def register(self, hello: Hello, principal: Principal) -> Link:
        """Register a worker over its new channel; an older one of its name ends. Raises EdgeError."""
        connection = str(uuid4())
        pace = self.pulse.interval(1)
        trace_id = context.trace_id({"traceparent": hello.traceparent or ""})
        now = datetime.now(UTC)

        def store() -> tuple[str | None, WorkerReply, list[fleet.Running]]:
            with hasty_session() as session:
                reply = registration.register(
                    session,
                    hello.name,
                    hello,
                    principal,
                    self._settings,
                    now,
                    trace_id=trace_id,
                    connection=connection,
                    heartbeat_interval=pace,
                )
                running = [fleet.Running(hello.name, str(job.id), job.claim) for job in hello.jobs or () if job.slots]
                return principal.team_for(hello.team_name), reply, fleet.not_held(session, running)

        if hello.name in self._registering:
            raise TooBusy("This worker is being registered over another channel. Try again a little later.")
        self._registering.add(hello.name)
        try:
            team, reply, not_held = await self._handshake(store)
        finally:
            self._registering.discard(hello.name)
        link = Link(connection, hello, team, reply)
        if (old := self.links.get(hello.name)) is not None:
            self._retire(old, link)
        self.links[hello.name] = link
        counters.CHANNEL_CONNECTIONS.set(len(self.links))
        link.send(Welcome(**dict(reply)))
        for job in not_held:
            link.send(Stale.model_validate({"id": job.id, "claim": job.claim}))
        self.assigner.wake()
        return link

    async def _handshake(self, work: Callable[[], R]) -> R:
        self._handshaking += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._handshakes, work)
        finally:
            self._handshaking -= 1

    def _retire(self, old: Link, new: Link) -> None:
        self.lost(old)
        if old.session == new.session:
            old.close(Bye(reason="The worker has opened another channel."))
        else:
            self.refuse(old, SessionReplaced())

    def refuse(self, link: Link, error: EdgeError) -> None:
        """Close a channel with what is wrong."""
        body = refusals.body(error, f"channel of {link.name}")
        link.close(Error(**dict(body)), code=CLOSED + error.status)

    async def hear(self, link: Link, message: Hello | Heartbeat | Accept | Decline | Ended) -> None:
        """Take in a message of a registered worker; returns when the next one may be read."""
        if isinstance(message, Heartbeat):
            _HEARTBEATS.inc()
            was_full = link.seat() is None
            self.pulse.mark(link, news=link.hear(message))
            if was_full:
                self.assigner.wake()
            return
        if isinstance(message, Hello):
            return
        key = (str(message.id), message.claim)
        if isinstance(message, Accept):
            link.accepted(key)
            report = Report(link.name, *key, JobState.RUNNING)
        elif isinstance(message, Decline):
            log.info("Worker %s declines job %s: %s", link.name, message.id, message.reason)
            link.decline(key)
            report = Report(link.name, *key, JobState.QUEUED, why="declined")
        else:
            link.released(key)
            self.assigner.wake()
            report = Report(link.name, *key, JobState(message.state), message)
        await self.recorder.put(report, link)

    def lost(self, link: Link) -> None:
        """A channel has ended: what was offered and not accepted returns to the queue."""
        if self.links.get(link.name) is link:
            del self.links[link.name]
            counters.CHANNEL_CONNECTIONS.set(len(self.links))
        for job in link.offered:
            self._report(Report(link.name, *job, JobState.QUEUED, why="disconnected"))
        link.offered.clear()

    def _report(self, report: Report) -> None:
        self.recorder.put_unanswered(report)

    def _cancel(self, link: Link, job: JobKey) -> None:
        cancel = {"id": job[0], "claim": job[1], "reason": "Airflow has withdrawn the task."}
        link.cancel(Cancel.model_validate(cancel))


async def keep(name: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a loop until it returns: a defect in one turn is logged, and the next turn comes."""
    while True:
        try:
            return await run()
        except Exception:
            log.exception("The %s loop failed; it goes on.", name)
            await asyncio.sleep(AFTER_DEFECT)
