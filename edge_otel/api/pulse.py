"""Writes heartbeats to the database many at a time, and learns there what is wanted of the connected workers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TypeVar

from edge_otel.api import registration
from edge_otel.api.link import JobKey, Link, Traced
from edge_otel.errors import EdgeError, Forbidden, SessionReplaced, WorkerNotFound
from edge_otel.messages import Bye
from edge_otel.models import fleet
from edge_otel.models.database import DatabaseFailure
from edge_otel.models.fleet import Beat, Reclaimed, Recorded, Stored
from edge_otel.models.session import hasty_session
from edge_otel.settings import Settings
from edge_otel.telemetry import central_spans
from edge_otel.telemetry.spans import Recorder

log = logging.getLogger(__name__)

FLUSH_INTERVAL = 1.0
"""Seconds for which heartbeats without news are gathered."""
NEWS_INTERVAL = 0.1
"""Seconds between writes of heartbeats with news."""
LOOK_INTERVAL = 5.0
"""Seconds between looks at all connected workers' rows: for changes that no heartbeat brought up."""
TOKEN_USE_INTERVAL = 60.0
PACE_TOLERANCE = 1.2
"""A worker is told another pace when it differs by this factor."""


R = TypeVar("R")


class Pulse:
    """Two loops that share one thread for the database."""

    def __init__(
        self,
        links: Mapping[str, Link],
        settings: Settings,
        spans: Recorder,
        refuse: Callable[[Link, EdgeError], None],
        cancel: Callable[[Link, JobKey], None],
    ) -> None:
        self._links = links
        self._settings = settings
        self._spans = spans
        self._refuse = refuse
        self._cancel = cancel
        self._unwritten: dict[str, Link] = {}
        self._news = asyncio.Event()
        self._noted: set[str] = set()
        self._look = asyncio.Event()
        self._token_uses_at = 0.0
        self._turn = asyncio.Lock()
        self._database = ThreadPoolExecutor(1, thread_name_prefix="edge-heartbeats")

    def interval(self, coming: int = 0) -> float:
        """Return the seconds between heartbeats that keep the sum of all within the setting."""
        connected = len(self._links) + coming
        return max(self._settings.heartbeat_interval, connected / self._settings.heartbeats_per_second)

    def mark(self, link: Link, news: bool) -> None:
        """Have a link's latest heartbeat written: soon when it holds news."""
        self._unwritten[link.name] = link
        if news:
            self._news.set()

    def note(self, worker: str) -> None:
        """Look at this worker's row again now."""
        if worker in self._links:
            self._noted.add(worker)
            self._look.set()

    async def run(self) -> None:
        """Write heartbeats until cancelled."""
        while True:
            await asyncio.sleep(NEWS_INTERVAL)
            await _wait(self._news, FLUSH_INTERVAL - NEWS_INTERVAL)
            self._news.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write the heartbeats that wait, and heed what the rows say."""
        async with self._turn:
            links, self._unwritten = self._unwritten, {}
            if not links:
                return
            seqs = {name: link.seq for name, link in links.items()}
            beats = {name: link.beat() for name, link in links.items()}
            traced: dict[str, list[Traced]] = {}
            for name, link in links.items():
                traced[name], link.traced = link.traced, []
            try:
                recorded = await self._ask(_record, beats)
            except DatabaseFailure as failure:
                log.warning("%d heartbeats wait for the database: %s", len(links), failure.orig)
                self._unwritten = links | self._unwritten
                for name, link in links.items():
                    link.not_stored(beats[name])
                self._record(traced, dict.fromkeys(links, type(failure).__name__))
                return
            for name in recorded.not_written:
                links[name].traced = traced.pop(name) + links[name].traced
                links[name].not_stored(beats[name])
            self._unwritten = {name: links[name] for name in recorded.not_written} | self._unwritten
            written = {name: link for name, link in links.items() if name not in recorded.not_written}
            self._record(traced, self._heed(written, recorded.rows, seqs))
            for job in recorded.not_held:
                if self._links.get(job.worker) is links[job.worker]:
                    self._cancel(links[job.worker], (job.id, job.claim))

    async def run_looks(self) -> None:
        """Look at rows until cancelled: at all now and then, and at those that somebody speaks of at once."""
        loop = asyncio.get_running_loop()
        due = loop.time() + LOOK_INTERVAL
        while True:
            await _wait(self._look, max(0.0, due - loop.time()))
            self._look.clear()
            everything = loop.time() >= due
            if everything:
                due = loop.time() + LOOK_INTERVAL
            noted, self._noted = self._noted, set()
            if not self._links:
                continue
            try:
                async with self._turn:
                    await self._look_at(list(self._links) if everything else noted)
                if everything:
                    await self._care()
            except DatabaseFailure as failure:
                log.warning("What is wanted of the workers cannot be read now: %s", failure.orig)

    async def _look_at(self, names: Iterable[str]) -> None:
        # A heartbeat that is not written yet knows more than the row, and its own turn comes.
        links = {name: self._links[name] for name in names if name in self._links and name not in self._unwritten}
        seqs = {name: link.seq for name, link in links.items()}
        rows, changed = await self._ask(_look, list(links))
        self._heed({name: link for name, link in links.items() if name not in self._unwritten}, rows, seqs)
        self._cancel_taken(changed)

    def _heed(self, links: Mapping[str, Link], rows: Mapping[str, Stored], seqs: Mapping[str, int]) -> dict[str, str]:
        """Do what the rows say, and return by name what is wrong with those workers that are not wanted here."""
        now = datetime.now(UTC)
        wrong: dict[str, str] = {}
        for name, link in links.items():
            row = rows.get(name)
            error: EdgeError | None = None
            if self._links.get(name) is not link:
                if row is None or row.connection != link.connection:
                    wrong[name] = "ConnectionReplaced"
                continue
            if row is None:
                error = WorkerNotFound(f"No worker {name!r} is registered any more.")
            elif row.connection != link.connection and row.session != link.session:
                error = SessionReplaced()
            elif row.connection != link.connection:
                wrong[name] = "ConnectionReplaced"
                link.close(Bye(reason="The worker is connected elsewhere."))
            elif row.revoked_at is not None or row.expires_at is None or row.expires_at <= now:
                error = Forbidden(reason=f"the token of worker {name} was revoked or has expired")
            else:
                link.heed(row, seqs[name])
            if error is not None:
                wrong[name] = type(error).__name__
                self._refuse(link, error)
        return wrong

    def _record(self, traced: Mapping[str, list[Traced]], wrong: Mapping[str, str]) -> None:
        now = datetime.now(UTC)
        for name, heartbeats in traced.items():
            for heard in heartbeats:
                error = wrong.get(name, "")
                self._spans.record(central_spans.heard(heard.report, name, heard.parent, heard.at, now, error))

    def _cancel_taken(self, changed: Mapping[str, Reclaimed]) -> None:
        for link in self._links.values() if changed else ():
            for job_id, claim in [*link.held, *link.offered]:
                row = changed.get(job_id)
                if row is not None and row.ended(claim):
                    self._cancel(link, (job_id, claim))

    async def _care(self) -> None:
        """Do what is due now and then: forgotten offers, the fleet's pace, the tokens' last use."""
        loop = asyncio.get_running_loop()
        interval = self.interval()
        for link in self._links.values():
            link.forget_offers_until(loop.time())
            settings = link.told.settings
            if settings is not None and _differs(settings.heartbeat_interval, interval):
                link.set_pace(registration.told(self._settings, interval, datetime.now(UTC)))
        if loop.time() - self._token_uses_at >= TOKEN_USE_INTERVAL:
            self._token_uses_at = loop.time()
            await self._ask(_record_token_uses, list(self._links))

    async def _ask(self, work: Callable[..., R], *args: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._database, work, *args)

    def close(self) -> None:
        """Let the thread end."""
        self._database.shutdown(wait=False, cancel_futures=True)


def _differs(told: float, interval: float) -> bool:
    return not told / PACE_TOLERANCE < interval < told * PACE_TOLERANCE


def _record(beats: dict[str, Beat]) -> Recorded:
    with hasty_session() as session:
        return fleet.record_beats(session, beats)


def _look(names: list[str]) -> tuple[dict[str, Stored], dict[str, Reclaimed]]:
    with hasty_session() as session:
        return fleet.stored(session, names), fleet.reclaimed_since(session, datetime.now(UTC) - fleet.RECENT)


def _record_token_uses(names: list[str]) -> None:
    with hasty_session() as session:
        fleet.record_token_uses(session, names, datetime.now(UTC))


async def _wait(event: asyncio.Event, timeout: float) -> bool:
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return False
    return True
