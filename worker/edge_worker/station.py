"""What the daemon knows of itself, shared by its loops: facts, slots, maintenance, jobs, and events to wake on."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

from edge_otel.state import Facts, WorkerState
from edge_otel.wire import OWN_FACTS, WorkerReply, WorkerSettings
from edge_worker import plan
from edge_worker.contact import Contact, clock
from edge_worker.environment import EXECUTION_API_URL
from edge_worker.health import Act
from edge_worker.jobs import Job
from edge_worker.journal import Journal, Maintenance
from edge_worker.logtail import LogTail
from edge_worker.meters import Moment
from edge_worker.outbox import Outbox
from edge_worker.settings import Pace, Settings, execution_api_url, pace
from edge_worker.turn import Turn
from edge_worker.usage import Running
from edge_worker.watch import Watch

log = logging.getLogger(__name__)

SKEW = 60.0
"""Seconds between the clocks that are worth a word."""


class Station:
    """One daemon's knowledge. Only its event loop's thread touches it."""

    departure: plan.Departure | None = None
    reason = ""
    cause = ""
    """Who asked for the drain."""
    replaced = False
    unwritable: str | None = None
    """Why the state folder cannot be written."""

    def __init__(
        self,
        settings: Settings,
        watch: Watch,
        journal: Journal,
        task_env: dict[str, str],
        outbox: Outbox,
        tail: LogTail,
    ) -> None:
        self.settings = settings
        self.outbox, self.tail = outbox, tail
        self.session = str(uuid4())
        self.jobs: dict[tuple[str, int], Job] = {}
        self.queues = settings.queues
        self.concurrency = settings.concurrency
        self.registered = asyncio.Event()
        self.leaving = asyncio.Event()
        """A drain has begun."""
        self.news = asyncio.Event()
        """The server should hear of something before the next heartbeat is due."""
        self.room = asyncio.Event()
        """A slot may be free."""
        self.stirred = asyncio.Event()
        """A job has ended, or the departure has changed: for the drain."""
        self.maintained: Callable[[Maintenance], None] = lambda _: None
        """Called with a maintenance that has ended."""
        self._begin_anew = False
        """The next report is a registration under a new session, by which a server takes over queues."""
        self.handover = asyncio.Event()
        """The daemon is to leave at once, and its jobs to the next one."""
        self.turns: dict[str, Turn] = {}
        """What each loop does."""
        self.started = time.time()
        self.last_contact: float | None = None
        """Seconds since the epoch of the last answer to a heartbeat."""
        self.heard_at: float | None = None
        """The same on the monotonic clock, which nobody sets."""
        self.transport: str | None = None
        """The one in use: ``channel``, ``polling``, or None while the server does not answer."""
        self.transport_since = time.time()
        """Seconds since the epoch."""
        self._told: WorkerSettings | None = None
        self._reply: WorkerReply | None = None
        """The server's latest."""
        self.reported_at = 0.0
        """Seconds since the epoch of the latest report."""
        self.clock_skew: float | None = None
        """Seconds that this machine's clock is ahead of the server's."""
        self.contact, self.watch = Contact(settings.state_dir, settings.policy, clock()), watch
        self._journal = journal
        self.disk = ThreadPoolExecutor(1, thread_name_prefix="disk")
        """Looks into the state folder. No other work may hold them up: they are timed."""
        self.task_env = task_env
        self.maintenance = journal.maintenance()
        if settings.maintenance_comment is not None:
            self.maintain(Maintenance(settings.maintenance_comment, "local"))
        if self.maintenance and self.maintenance.origin == "automatic" and watch.rules.for_ever:
            how = "by `edge-worker maintenance off` or at the central site"
            log.warning("in automatic maintenance (%s), which only you can end: %s", self.maintenance.comment, how)

    @property
    def facts(self) -> Facts:
        """The facts as of now."""
        active = sum(job.active for job in self.jobs.values())
        return Facts(active, self.departure is not None, self.maintenance is not None)

    @property
    def free(self) -> int:
        """Slots that may be filled now."""
        if self.replaced or self.unwritable or self.contact.lost(clock()) or not self.registered.is_set():
            return 0
        used = sum(job.ticket.slots for job in self.jobs.values() if job.active)
        return plan.free_slots(self.facts, self.concurrency, used)

    def pace(self) -> Pace:
        """Return how often things happen: heartbeats often enough for the disconnect policy to tell a lost link."""
        found, limit = pace(self.settings, self._told), self.contact.policy.stop_after
        # A pause may be a quarter longer: four are within the limit all the same.
        often = found.heartbeat_interval if limit is None else min(found.heartbeat_interval, limit / 5)
        return replace(found, heartbeat_interval=often)

    def execution_api_url(self) -> str:
        """Return the URL that tasks call."""
        told = self.task_env.get(EXECUTION_API_URL) or (self._told.execution_api_url if self._told else None)
        return execution_api_url(self.settings, told)

    def executors(self) -> str | None:
        """Return the executors of the central side, None where it has not told them."""
        return self._told.executors if self._told else None

    def renews(self) -> bool:
        """Return whether the server gives running tasks new tokens."""
        return self._told is not None and self._told.token_renewal

    @property
    def log_backlog(self) -> int:
        """Bytes of task log that the server does not have yet."""
        return sum(job.backlog for job in self.jobs.values())

    def moment(self) -> Moment:
        """Return what the metrics are to tell of now."""
        running = [
            Running(key, job.ticket.queue, job.process)
            for key, job in self.jobs.items()
            if job.active and job.process is not None
        ]
        told = self.watch.users(time.monotonic()) or {}
        return Moment(running, self.log_backlog, {k: fact for k, fact in told.items() if k not in OWN_FACTS})

    def look(self) -> None:
        """Look at host and health anew: before each report. Automatic maintenance begins and ends here."""
        origin = self.maintenance.origin if self.maintenance else None
        act = self.watch.look(time.monotonic(), origin, self.unwritable)
        if act is Act.BEGIN:
            self.maintain(Maintenance(self.watch.health.reason[:1024], "automatic"))
        elif act is Act.END:
            self.maintain(None, by_person=False)

    def grounded(self, unwritable: str | None) -> None:
        """Heed why the state folder cannot be written, or that it can: None. No jobs are taken while it cannot."""
        if unwritable == self.unwritable:
            return
        if unwritable is None:
            log.info("%s can be written again", self.settings.state_dir)
        else:
            log.error("no jobs are taken: %s cannot be written: %s", self.settings.state_dir, unwritable)
        self.unwritable = unwritable
        self.news.set()
        self.room.set()

    def hear(self, reported: WorkerState, reply: WorkerReply) -> None:
        """Obey the answer to a report of state ``reported``."""
        before = self.facts
        self.last_contact, self.heard_at = time.time(), time.monotonic()
        if reply.settings is not None:
            self._told = reply.settings
        # A server that tells no settings has no gateway either.
        self.outbox.told(self._told is not None and self._told.otlp)
        if reply.queues != self.queues:
            log.info("queues are now %s", ",".join(reply.queues or ["(all)"]))
            self.queues = reply.queues
        facts = plan.after_reply(before, reported, reply.state)
        if facts.maintenance and not before.maintenance:
            self.maintain(Maintenance(reply.maintenance_comments or "", "admin"))
        elif before.maintenance and not facts.maintenance:
            self.maintain(None)
        elif self.maintenance:
            self._adopt(self.maintenance, reply)
        self._reply = reply
        self._count_slots()
        if facts.draining and not before.draining:
            self.drain("asked to by the server", "admin")

    def _count_slots(self) -> None:
        wanted = self._reply.concurrency if self._reply else None
        concurrency = wanted or self.settings.concurrency
        if concurrency != self.concurrency:
            log.info("concurrency is now %d", concurrency)
            self.concurrency = concurrency
            self.room.set()

    def renew(self, settings: Settings, task_env: dict[str, str]) -> None:
        """Go on with these settings and this environment of tasks."""
        self._begin_anew = self._begin_anew or settings.queues != self.settings.queues
        self.settings, self.task_env = settings, task_env
        self.watch.heed(settings)
        self.contact.heed(settings.policy)
        self._count_slots()
        self.news.set()

    def register_anew(self) -> None:
        """Have the server judge this worker again."""
        self.registered.clear()
        self.news.set()

    def begin(self) -> bool:
        """Return before a report whether the server knows this session, which may be a new one from now on."""
        if self._begin_anew:
            self._begin_anew = False
            self.session, self.queues = str(uuid4()), self.settings.queues
            self.registered.clear()
        return self.registered.is_set()

    def compare_clocks(self, now: float, theirs: datetime) -> None:
        """Heed the server's time in the answer to the latest report, which came ``now`` (seconds since the epoch)."""
        skew = (self.reported_at + now) / 2 - (theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)).timestamp()
        if abs(skew) > SKEW and abs(self.clock_skew or 0) <= SKEW:
            log.warning("the clock is %.0f s %s the server's", abs(skew), "ahead of" if skew > 0 else "behind")
        self.clock_skew = skew

    def carried(self, transport: str | None) -> None:
        """Note the transport in use."""
        if transport != self.transport:
            self.transport, self.transport_since = transport, time.time()

    def _adopt(self, maintenance: Maintenance, reply: WorkerReply) -> None:
        """Take over what an administrator has said about a maintenance that was on: then it is theirs to end."""
        # What the server has said before is no news: it may not have heard yet what was said here since.
        before = self._reply.maintenance_comments if self._reply else None
        news = reply.maintenance_comments not in (None, before)
        comment = (reply.maintenance_comments if news else None) or maintenance.comment
        # A server of edge3 does not say whose comment it is: none but an administrator writes another there.
        unsaid = reply.maintenance_origin is None and comment != maintenance.comment
        theirs = reply.maintenance_origin == "admin" or (unsaid and maintenance.origin == "automatic")
        origin = "admin" if theirs else maintenance.origin
        if (comment, origin) != (maintenance.comment, maintenance.origin):
            self.maintain(replace(maintenance, comment=comment, origin=origin))
            self.news.set()

    def maintain(self, maintenance: Maintenance | None, by_person: bool = True) -> None:
        """Enter maintenance, or end it with None; remembered over restarts."""
        changed = (maintenance is None) != (self.maintenance is None)
        if maintenance is not None:
            if changed:
                log.info("maintenance begins (%s): %s", maintenance.origin, maintenance.comment)
        elif changed:
            log.info("maintenance ends")
            if by_person:
                self.watch.excuse()
        if maintenance is not None:
            maintenance = replace(maintenance, since=self.maintenance.since if self.maintenance else time.time())
        elif self.maintenance is not None:
            self.maintained(self.maintenance)
        self.maintenance = maintenance
        try:
            self._journal.remember(maintenance)
        except OSError as error:
            log.error("cannot remember maintenance: %s", error)  # noqa: TRY400
        if changed:
            self.news.set()
            self.room.set()

    def drain(self, reason: str, cause: str, at_once: bool = False) -> None:
        """Take no more jobs and leave when the present ones have ended; ``at_once`` stops those now."""
        now = time.monotonic()
        if self.departure is None:
            log.info("draining: %s; %d jobs active", reason, self.facts.jobs)
            patience = self.settings.drain_timeout or None
            self.departure = plan.Departure(now, patience, self.settings.kill_grace)
            self.cause = cause
            self.reason = f"the drain timeout of {patience} s has passed" if patience else reason
        if at_once and self.departure.patience != 0:
            self.departure = plan.Departure(now, 0, self.settings.kill_grace)
            self.reason = reason
        self.leaving.set()
        self.news.set()
        self.room.set()
        self.stirred.set()

    def hand_over(self, reason: str) -> None:
        """Leave at once; the jobs go on, and the next daemon of this state folder adopts them."""
        log.info("handing over: %s; %d jobs go on", reason, self.facts.jobs)
        self.handover.set()

    def changed(self) -> None:
        """A job's slot or its need to be reported has changed."""
        self.news.set()
        self.room.set()
        self.stirred.set()
