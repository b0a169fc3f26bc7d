"""The daemon's loops: register and heartbeat, fetch, leave. One task each, and one per job; all are owned here."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from typing import Protocol

from edge_otel.state import WorkerState, observe
from edge_otel.telemetry import context
from edge_otel.wire import FetchRequest, JobOffer, JobReport, WorkerReply, WorkerReport
from edge_worker import plan, spans
from edge_worker.faults import Fault, Forgotten, NotAllowed, Refused, Replaced, Unreachable
from edge_worker.jobs import Job, JobTransport, Site
from edge_worker.journal import Journal, Ticket
from edge_worker.patience import pause, persist, wait
from edge_worker.station import Station

log = logging.getLogger(__name__)

NEWS_GAP = 0.25
"""Seconds between heartbeats that are sent early: many short jobs must not become as many heartbeats."""

DELIVER_WITHIN, FAREWELL_WITHIN = 20.0, 10.0
"""Seconds at the end for the last reports and logs, and for the last heartbeat."""

UNACCEPTED_WITHIN = 5.0
"""Seconds that a drain waits for answers about offers when nothing runs."""

STOPPED, REFUSED, REPLACED = 0, 3, 4
"""Exit codes; 2 is a bad configuration."""


class Transport(JobTransport, Protocol):
    """What the loops need of the wire. Every method raises Fault."""

    async def register(self, report: WorkerReport) -> WorkerReply:
        """Announce this daemon."""

    async def beat(self, report: WorkerReport) -> WorkerReply:
        """Send a heartbeat."""

    async def fetch(self, request: FetchRequest) -> JobOffer | None:
        """Return an offer, or None when there is none now."""


class Loop:
    """Runs the daemon until it has left."""

    def __init__(self, station: Station, transport: Transport, site: Site, journal: Journal) -> None:
        self._station = station
        self._transport = transport
        self._site = site
        self._journal = journal
        self._tasks: set[asyncio.Task[None]] = set()
        self._code = STOPPED

    async def run(self) -> int:
        """Return the exit code."""
        station = self._station
        self._adopt()
        heart = asyncio.create_task(self._heart(), name="heartbeat")
        fetching = asyncio.create_task(self._fetching(), name="fetch")
        leaving = asyncio.create_task(self._leave(), name="leave")
        try:
            done, _ = await asyncio.wait({heart, fetching, leaving}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                # A defect ends the daemon; the jobs go on, and the next daemon adopts them.
                task.result()
            if self._code != REFUSED:
                await leaving
                # A fetch under way may still bring an offer, which is declined.
                await asyncio.wait({fetching}, timeout=UNACCEPTED_WITHIN)
                heart.cancel()
                await asyncio.gather(heart, return_exceptions=True)
                if not station.replaced:
                    await self._farewell()
        finally:
            tasks = {heart, fetching, leaving, *self._tasks}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return self._code

    def _adopt(self) -> None:
        for folder in self._journal.jobs():
            try:
                ticket, verdict = folder.ticket(), folder.verdict()
                how = plan.readopt(
                    folder.started() is not None,
                    verdict is not None,
                    verdict is not None and verdict.reported and verdict.log_shipped,
                )
                folder.result()
            except (ValueError, OSError) as error:
                self._journal.set_aside(folder, error)
                continue
            if how is plan.Readopted.FORGET:
                folder.remove()
                continue
            log.info("job %s: found again: %s", ticket.id, how.value)
            job = Job(self._site, folder, ticket)
            job.active = how is not plan.Readopted.REPORT
            job.unreported = verdict is None or not verdict.reported
            self._own(job, how)

    def _own(self, job: Job, how: plan.Readopted = plan.Readopted.ACCEPT) -> None:
        key = (job.ticket.id, job.ticket.claim)
        self._station.jobs[key] = job

        async def see_through() -> None:
            if how is plan.Readopted.ACCEPT:
                await self._station.registered.wait()
            try:
                await job.run(how)
            except Exception:
                log.exception("job %s: given up; its folder stays for the next start", job.ticket.id)
            finally:
                del self._station.jobs[key]
                self._station.changed()

        task = asyncio.create_task(see_through(), name=f"job-{job.ticket.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _heart(self) -> None:
        station = self._station
        failures = 0
        while not station.replaced:
            known = station.registered.is_set()
            # A worker in maintenance says so from the first word, else the server would take it out of it.
            state = observe(station.facts) if known or station.maintenance else WorkerState.STARTING
            report = station.report(state)
            station.news.clear()
            try:
                reply = await (self._transport.beat(report) if known else self._transport.register(report))
            except Forgotten as fault:
                log.warning("the server does not know this worker: %s; registering again", fault)
                station.registered.clear()
                if not known:
                    await asyncio.sleep(plan.jittered(plan.BACKOFF_LAST, random.random()))  # noqa: S311
                continue
            except Replaced as fault:
                self._step_down(fault)
                return
            except Refused as fault:
                if not known and not station.jobs and not isinstance(fault, Unreachable):
                    log.error("%s. Registration as %r was refused.", fault, station.settings.name)  # noqa: TRY400
                    self._code = REFUSED
                    return
                log.error("%s refused: %s", "heartbeat" if known else "registration", fault)  # noqa: TRY400
                await asyncio.sleep(pause(0, NotAllowed(fault.status, fault.error, fault.detail)))
                continue
            except Unreachable as fault:
                level = logging.WARNING if failures in (0, 5) or failures % 20 == 19 else logging.DEBUG
                log.log(level, "%s; trying again (failure %d)", fault, failures + 1)
                await asyncio.sleep(pause(failures, fault))
                failures += 1
                continue
            if failures:
                log.info("the server answers again")
            failures = 0
            station.hear(report.state, reply)
            if not known:
                log.info("registered as %s, session %s", station.settings.name, station.session)
                station.registered.set()
                station.room.set()
                station.news.set()
            await asyncio.sleep(NEWS_GAP)
            interval = plan.jittered(station.pace().heartbeat_interval, random.random())  # noqa: S311
            await wait(station.news, max(0.0, interval - NEWS_GAP))

    def _step_down(self, fault: Replaced) -> None:
        log.error("%s Taking no more jobs; this daemon ends with its last one.", fault.detail)
        self._station.replaced = True
        self._code = REPLACED
        self._station.drain("replaced by another daemon of this name")

    async def _fetching(self) -> None:
        station = self._station
        failures = 0
        while station.departure is None:
            station.room.clear()
            if station.free <= 0:
                await station.room.wait()
                continue
            try:
                offer = await self._transport.fetch(station.fetch_request())
            except Replaced as fault:
                self._step_down(fault)
                continue
            except Fault as fault:
                if isinstance(fault, Forgotten):
                    station.registered.clear()
                    station.news.set()
                log.log(logging.DEBUG if failures else logging.WARNING, "fetch: %s", fault)
                retry = fault if isinstance(fault, Unreachable) else NotAllowed(0, "", "")
                await asyncio.sleep(pause(failures, retry))
                failures += 1
                continue
            failures = 0
            if offer is None:
                await wait(station.room, plan.jittered(station.pace().poll_interval, random.random()))  # noqa: S311
            else:
                await self._take(offer)

    async def _take(self, offer: JobOffer) -> None:
        ticket = read_ticket(offer)
        log.info("job %s: offered: %s %s %s", ticket.id, ticket.dag_id, ticket.run_id, ticket.task_id)
        if (ticket.id, ticket.claim) in self._station.jobs:
            return
        if self._station.free <= 0:
            await self._decline(ticket, "there is no free slot any more")
            return
        folder = self._journal.folder(ticket.id, ticket.claim)
        try:
            folder.open(ticket, json.dumps(spans.hand_over(offer.command, ticket.span)))
        except OSError as error:
            folder.remove()
            await self._decline(ticket, f"its folder cannot be written: {error}")
            await asyncio.sleep(self._station.pace().poll_interval)
            return
        self._own(Job(self._site, folder, ticket))
        self._station.news.set()

    async def _decline(self, ticket: Ticket, why: str) -> None:
        log.warning("job %s: declined: %s", ticket.id, why)
        report = JobReport.model_validate({"task_instance_id": ticket.id, "claim": ticket.claim, "error": why})
        try:
            await self._transport.report(ticket, "queued", report)
        except Fault as fault:
            # An offer that nobody accepts returns to the queue by itself.
            log.debug("job %s: %s", ticket.id, fault)

    async def _leave(self) -> None:
        station = self._station
        await station.leaving.wait()
        while station.facts.jobs:
            station.stirred.clear()
            departure = station.departure
            assert departure is not None
            if not any(job.running for job in station.jobs.values()):
                if not await wait(station.stirred, UNACCEPTED_WITHIN):
                    break  # offers whose acceptance gets no answer: the next daemon asks again
                continue
            action, until = plan.push(departure, time.monotonic())
            for job in [job for job in station.jobs.values() if job.running]:
                if action is plan.Push.TERMINATE:
                    job.stop(f"Stopped by the edge worker: {station.reason}.")
                elif action is plan.Push.KILL:
                    job.stop(f"Killed by the edge worker: {station.reason}.")
                    job.kill()
            await wait(station.stirred, None if until is None else max(0.0, until - time.monotonic()))
        await self._deliver()

    async def _deliver(self) -> None:
        if not self._tasks:
            return
        _, left = await asyncio.wait(self._tasks, timeout=DELIVER_WITHIN)
        if left:
            log.warning("%d jobs have reports or logs to send; the next start sends them", len(left))

    async def _farewell(self) -> None:
        state = WorkerState.OFFLINE_MAINTENANCE if self._station.maintenance else WorkerState.OFFLINE
        if not self._station.registered.is_set():
            return
        try:
            async with asyncio.timeout(FAREWELL_WITHIN):
                await persist(lambda: self._transport.beat(self._station.report(state)), "last heartbeat")
        except (TimeoutError, Fault) as fault:
            log.warning("the server was not told that this worker is offline: %s", fault or "no answer in time")


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
        span=spans.child_of(parent),
    )
