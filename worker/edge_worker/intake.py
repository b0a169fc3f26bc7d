"""What comes from the server besides answers: jobs, fetched or pushed, and its wishes."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable
from typing import Protocol

from edge_otel.telemetry import context
from edge_otel.wire import FetchRequest, JobOffer, JobReport
from edge_worker import plan, reports, spans, subject
from edge_worker.faults import Fault, Forgotten, NotAllowed, Replaced, Unreachable
from edge_worker.jobs import Job
from edge_worker.journal import Journal, Ticket
from edge_worker.patience import pause, wait
from edge_worker.received import Received, Revoked, Wish
from edge_worker.site import JobTransport, Site
from edge_worker.station import Station
from edge_worker.turn import Turn

log = logging.getLogger(__name__)


class IntakeTransport(JobTransport, Protocol):
    """What the intake needs of the wire."""

    @property
    def using(self) -> str | None:
        """The transport in use; jobs are fetched by ``polling`` only."""

    async def fetch(self, request: FetchRequest) -> JobOffer | None:
        """Return an offer, or None when there is none now. Raises Fault."""

    async def receive(self) -> Received:
        """Return the next thing that the server has said unasked."""


class Intake:
    """Takes or declines what is offered; ``own`` is given each job that was taken."""

    def __init__(
        self,
        station: Station,
        transport: IntakeTransport,
        site: Site,
        journal: Journal,
        own: Callable[[Job], None],
        step_down: Callable[[Replaced], None],
    ) -> None:
        self._station = station
        self._transport = transport
        self._site = site
        self._journal = journal
        self._own = own
        self._step_down = step_down
        # None of what they do has a bound: their calls may queue behind those of many jobs.
        self._receiving, self._fetching = Turn(), Turn()
        self.turns = {"fetch": self._fetching, "receive": self._receiving}
        self._turn = asyncio.Lock()
        """Of one offer after the other: each is written down before the slots are counted again."""

    async def receive(self) -> None:
        """Heed what the server says unasked; never returns."""
        station = self._station
        while True:
            self._receiving("listening")
            match await self._transport.receive():
                case JobOffer() as offer:
                    self._receiving("taking an offer")
                    await self._take(offer)
                case Wish() as wish:
                    station.hear(wish.reported, wish.reply)
                case Revoked() as revoked:
                    job = station.jobs.get((revoked.id, revoked.claim))
                    if job is not None:
                        job.revoke(revoked.reason, revoked.cancelled)
                case _:
                    # The heartbeat finds out what has become of the channel.
                    station.news.set()

    async def fetch(self) -> None:
        """Ask for jobs while v1 is polled and slots are free, until a drain begins."""
        station = self._station
        failures = 0
        while station.departure is None:
            station.room.clear()
            if station.free <= 0 or self._transport.using != "polling":
                self._fetching("waiting for a free slot" if station.free <= 0 else "jobs are pushed")
                await station.room.wait()
                continue
            self._fetching("asking for a job")
            request = reports.question(station)
            try:
                offer = await self._transport.fetch(request)
            except Replaced as fault:
                # By ourselves, where the session is another one meanwhile.
                if request.session == station.session:
                    self._step_down(fault)
                continue
            except Fault as fault:
                if isinstance(fault, Forgotten):
                    station.registered.clear()
                    station.news.set()
                log.log(logging.DEBUG if failures else logging.WARNING, "fetch: %s", fault)
                retry = fault if isinstance(fault, Unreachable) else NotAllowed(0, "", "")
                self._fetching("waiting to try again")
                await asyncio.sleep(pause(failures, retry))
                failures += 1
                continue
            failures = 0
            self._fetching("waiting until the next question is due")
            if offer is None or not await self._take(offer):
                await wait(station.room, plan.jittered(station.pace().poll_interval, random.random()))  # noqa: S311
        self._fetching("no more: leaving")

    async def _take(self, offer: JobOffer) -> bool:
        """Return whether the job is this worker's to see through, or decline it."""
        ticket = read_ticket(offer)
        with subject.of_job(ticket):
            async with self._turn:
                return await self._consider(offer, ticket)

    async def _consider(self, offer: JobOffer, ticket: Ticket) -> bool:
        log.info("job %s: offered: %s %s %s", ticket.id, ticket.dag_id, ticket.run_id, ticket.task_id)
        if (ticket.id, ticket.claim) in self._station.jobs:
            return True
        if ticket.slots > self._station.free:
            await self._decline(ticket, f"it needs {ticket.slots} slots, and {self._station.free} are free")
            # The server has counted otherwise.
            self._station.news.set()
            return False
        folder = self._journal.folder(ticket.id, ticket.claim)
        try:
            handed = json.dumps(spans.hand_over(offer.command, ticket.span))
            # The disk may take its time.
            await asyncio.to_thread(folder.open, ticket, handed)
        except OSError as error:
            self._journal.forget(folder)
            # First: it must not be offered again at once.
            self._station.grounded(error.strerror or str(error))
            await self._decline(ticket, f"its folder cannot be written: {error}")
            return False
        if self._station.departure is not None:
            # Begun meanwhile, and perhaps at its end already: nobody would wait for this job.
            self._journal.forget(folder)
            await self._decline(ticket, "the worker leaves")
            return False
        self._journal.left.discard(folder.path)
        self._own(Job(self._site, folder, ticket))
        self._station.news.set()
        return True

    async def _decline(self, ticket: Ticket, why: str) -> None:
        log.warning("job %s: declined: %s", ticket.id, why)
        report = JobReport.model_validate({"task_instance_id": ticket.id, "claim": ticket.claim, "error": why})
        try:
            await self._transport.report(ticket, "queued", report)
        except Fault as fault:
            # An offer that nobody accepts returns to the queue by itself.
            log.debug("job %s: %s", ticket.id, fault)


def read_ticket(offer: JobOffer) -> Ticket:
    """Return the ticket of an offer, with a span of its own below the task's context."""
    parent = context.valid(offer.carrier)
    log_path = offer.command.get("log_path")
    return Ticket(
        id=str(offer.task_instance_id),
        claim=offer.claim,
        dag_id=offer.dag_id,
        task_id=offer.task_id,
        run_id=offer.run_id,
        map_index=offer.map_index,
        try_number=offer.try_number,
        slots=max(1, offer.concurrency_slots),
        queue=offer.queue,
        log_path=log_path if isinstance(log_path, str) else None,
        parent=parent,
        span=context.child_of(parent),
    )
