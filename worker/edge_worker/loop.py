"""The daemon's loops: heartbeat, intake, leave. One task each, and one per job; all are owned here."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Any, Protocol

from edge_otel.state import WorkerState, observe
from edge_otel.wire import WorkerReply, WorkerReport
from edge_worker import patience, plan, processes, reports, subject
from edge_worker.cutoff import Cutoff
from edge_worker.faults import Disconnected, Fault, Forgotten, NotAllowed, Refused, Replaced, Unreachable
from edge_worker.intake import Intake, IntakeTransport
from edge_worker.jobs import STALE, Job
from edge_worker.journal import JobFolder, Journal
from edge_worker.patience import pause, persist, wait
from edge_worker.pulse import Pulse, PulseTransport
from edge_worker.reissue import Reissue, ReissueTransport
from edge_worker.salvage import salvage
from edge_worker.site import Site
from edge_worker.station import Station
from edge_worker.turn import Turn

log = logging.getLogger(__name__)

NEWS_GAP = 0.25
"""Seconds between heartbeats that are sent early: many short jobs must not become as many heartbeats."""

DELIVER_WITHIN, FAREWELL_WITHIN = 20.0, 10.0
"""Seconds at the end for the last reports and logs, and for the last heartbeat."""

UNACCEPTED_WITHIN = 5.0
"""Seconds that a drain waits for answers about offers when nothing runs."""

BEAT_WITHIN, SLACK = 300.0, 60.0
"""Seconds for a heartbeat by all ways there are, each with its own timeouts; and beyond a pause."""

STOPPED, REFUSED, REPLACED, HANDED_OVER = 0, 3, 4, 5
"""Exit codes; 1 is a defect, 2 a bad configuration."""


class Transport(IntakeTransport, PulseTransport, ReissueTransport, Protocol):
    """What the loops need of the wire. Every method raises Fault."""


class Loop:
    """Runs the daemon until it has left."""

    def __init__(self, station: Station, transport: Transport, site: Site, journal: Journal) -> None:
        self._station = station
        self._transport = transport
        self._site = site
        self._journal = journal
        self._pulse = Pulse(transport, site.spans, site.meters, lambda: station.pace().heartbeat_sampling)
        station.maintained = lambda maintenance: site.spans.maintained(maintenance, time.time())
        self._beating, self._leaving = Turn(), Turn("waiting for a reason to leave")
        self._intake = Intake(station, transport, site, journal, self._own, self._step_down)
        station.turns |= {"heartbeat": self._beating, **self._intake.turns, "leave": self._leaving}
        self._tasks: dict[asyncio.Task[None], Job] = {}
        self._met = False
        """The server has taken this daemon."""
        self._code = STOPPED

    async def run(self) -> int:
        """Return the exit code."""
        station = self._station
        self._adopt()
        heart = asyncio.create_task(self._heart(), name="heartbeat")
        fetching = asyncio.create_task(self._intake.fetch(), name="fetch")
        receiving = asyncio.create_task(self._intake.receive(), name="receive")
        leaving = asyncio.create_task(self._leave(), name="leave")
        handing = asyncio.create_task(station.handover.wait(), name="handover")
        cutting = asyncio.create_task(Cutoff(station).run(), name="cutoff")
        renewing = asyncio.create_task(Reissue(station, self._transport).run(), name="reissue")
        try:
            loops: set[asyncio.Task[Any]] = {heart, fetching, receiving, leaving, handing, renewing, cutting}
            while not (leaving.done() or handing.done() or self._code == REFUSED):
                done, loops = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    # A defect ends the daemon; the jobs go on, and the next daemon adopts them.
                    task.result()
            if handing.done():
                # One who was replaced must not come back.
                self._code = HANDED_OVER if self._code == STOPPED else self._code
            elif self._code != REFUSED:
                # A fetch under way may still bring an offer, which is declined.
                await asyncio.wait({fetching}, timeout=UNACCEPTED_WITHIN)
                heart.cancel()
                await asyncio.gather(heart, return_exceptions=True)
                if not station.replaced:
                    await self._farewell()
        finally:
            tasks = {heart, fetching, receiving, leaving, handing, renewing, cutting, *self._tasks}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return self._code

    def _adopt(self) -> None:
        for folder in self._journal.jobs():
            self._take_up_or_salvage(folder)

    def _take_up_or_salvage(self, folder: JobFolder, before: Job | None = None) -> None:
        try:
            self._take_up(folder, before)
        except (ValueError, OSError) as problem:
            try:
                if salvage(self._journal, folder, problem):
                    self._take_up(folder, before)
            except (ValueError, OSError) as error:
                log.error("%s can neither be read nor moved: %s", folder.path, error)  # noqa: TRY400

    def _take_up(self, folder: JobFolder, before: Job | None) -> None:
        """See through what an earlier daemon, or a defect, has left; raises ValueError and OSError."""
        # What was known of a job is not forgotten with its folder.
        ticket, verdict = before.ticket if before else folder.ticket(), folder.verdict()
        process = folder.started() or (before.process if before else None)
        how = plan.readopt(
            any([process, folder.result()]),
            verdict is not None,
            verdict is not None and verdict.reported and verdict.log_shipped,
        )
        if how is plan.Readopted.FORGET:
            folder.remove()
            return
        with subject.of_job(ticket):
            log.info("job %s: found again: %s", ticket.id, how.value)
        job = Job(self._site, folder, ticket, process)
        stale = verdict is not None and verdict.outcome == STALE
        job.active = how is not plan.Readopted.REPORT or (stale and process is not None and processes.may_live(process))
        job.unreported = verdict is None or not verdict.reported
        if before is not None:
            job.succeed(before)
        self._own(job, how)

    def _own(self, job: Job, how: plan.Readopted = plan.Readopted.ACCEPT) -> None:
        key = (job.ticket.id, job.ticket.claim)
        self._station.jobs[key] = job

        async def see_through() -> None:
            failed = False
            try:
                if how is plan.Readopted.ACCEPT:
                    await self._station.registered.wait()
                await job.run(how)
            except Exception:
                log.exception("job %s: a defect; it is taken up again in %.0f s", job.ticket.id, patience.AGAIN)
                failed = True
                job.lose_sight()
                self._station.changed()
                # Still here for the server.
                await asyncio.sleep(patience.AGAIN)
            finally:
                del self._station.jobs[key]
                self._station.changed()
            if failed:
                self._take_up_or_salvage(job.folder, job)

        with subject.of_job(job.ticket):
            task = asyncio.create_task(see_through(), name=f"job-{job.ticket.id}")
        self._tasks[task] = job
        task.add_done_callback(self._tasks.pop)

    async def _heart(self) -> None:
        station = self._station
        failures = 0
        while not station.replaced:
            known = station.begin()
            station.look()
            # A worker in maintenance says so from the first word, else the server would take it out of it.
            state = observe(station.facts) if self._met or station.maintenance else WorkerState.STARTING
            report = reports.report(station, state)
            station.news.clear()
            self._beating("sending a heartbeat" if known else "registering", BEAT_WITHIN)
            try:
                reply = await self._say(report, known)
            except Forgotten as fault:
                log.warning("the server does not know this worker: %s; registering again", fault)
                station.registered.clear()
                if not known:
                    await self._rest(plan.jittered(plan.BACKOFF_LAST, random.random()))  # noqa: S311
                continue
            except Replaced as fault:
                self._step_down(fault)
                break
            except Refused as fault:
                if not self._met and not station.jobs:
                    log.error("%s. Registration as %r was refused.", fault, station.settings.name)  # noqa: TRY400
                    self._code = REFUSED
                    return
                log.error("%s refused: %s", "heartbeat" if known else "registration", fault)  # noqa: TRY400
                await self._rest(pause(0, NotAllowed(fault.status, fault.error, fault.detail)))
                continue
            except Disconnected as fault:
                log.log(logging.INFO if fault.orderly else logging.WARNING, "%s; connecting again", fault)
                station.registered.clear()
                station.carried(None)
                await self._rest(fault.retry_after or 0.0)
                continue
            except Unreachable as fault:
                level = logging.WARNING if failures in (0, 5) or failures % 20 == 19 else logging.DEBUG
                log.log(level, "%s; trying again (failure %d)", fault, failures + 1)
                await self._rest(pause(failures, fault))
                failures += 1
                continue
            if failures:
                log.info("the server answers again")
            failures = 0
            self._met = True
            self._heed(known, report.state, reply)
            interval = plan.jittered(station.pace().heartbeat_interval, random.random())  # noqa: S311
            self._beating("waiting until the next heartbeat is due", interval + SLACK)
            await asyncio.sleep(NEWS_GAP)
            await wait(station.news, max(0.0, interval - NEWS_GAP))
        self._beating("none any more: another daemon has this name")

    async def _say(self, report: WorkerReport, known: bool) -> WorkerReply:
        """Return the answer to a report. Raises Fault."""
        tail = self._station.tail
        try:
            reply = await (self._pulse.beat(report) if known else self._pulse.register(report))
        except Fault:
            tail.failed(report.log)
            raise
        tail.answered(report.log)
        return reply

    async def _rest(self, seconds: float) -> None:
        self._beating(f"waiting {seconds:.0f} s to try again", seconds + SLACK)
        await asyncio.sleep(seconds)

    def _heed(self, known: bool, reported: WorkerState, reply: WorkerReply) -> None:
        station = self._station
        station.contact.answered()
        station.compare_clocks(time.time(), reply.last_update)
        station.hear(reported, reply)
        station.carried(self._transport.using)
        if not known:
            log.info("registered as %s by %s, session %s", station.settings.name, station.transport, station.session)
            station.registered.set()
            station.room.set()
            station.news.set()

    def _step_down(self, fault: Replaced) -> None:
        log.error("%s Taking no more jobs; this daemon ends with its last one.", fault.detail)
        self._station.replaced = True
        self._code = REPLACED
        self._station.drain("replaced by another daemon of this name", "replaced")

    async def _leave(self) -> None:
        station = self._station
        await station.leaving.wait()
        self._leaving("waiting for the jobs to end")
        begun, jobs = time.time(), station.facts.jobs
        while station.facts.jobs:
            station.stirred.clear()
            departure = station.departure
            assert departure is not None
            running = [job for job in station.jobs.values() if job.running]
            if not running:
                if not await wait(station.stirred, UNACCEPTED_WITHIN):
                    await self._leave_unaccepted()
                continue
            action, until = plan.push(departure, time.monotonic())
            if action is plan.Push.TERMINATE:
                for job in running:
                    job.stop(f"Stopped by the edge worker: {station.reason}.")
            elif action is plan.Push.KILL:
                await asyncio.gather(*(job.kill(f"Killed by the edge worker: {station.reason}.") for job in running))
            await wait(station.stirred, None if until is None else max(0.0, until - time.monotonic()))
        self._site.spans.drained(begun, time.time(), jobs, station.cause)
        await self._deliver()

    async def _leave_unaccepted(self) -> None:
        """Leave offers whose acceptance gets no answer to the next daemon: one that is answered now would run alone."""
        left = {task: job for task, job in self._tasks.items() if job.active and not job.running}
        for task, job in left.items():
            log.warning("job %s: its acceptance is not answered; the next start asks again", job.ticket.id)
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _deliver(self) -> None:
        if not self._tasks:
            return
        self._leaving("delivering reports and logs")
        _, left = await asyncio.wait(self._tasks, timeout=DELIVER_WITHIN)
        if left:
            log.warning("%d jobs have reports or logs to send; the next start sends them", len(left))

    async def _farewell(self) -> None:
        state = WorkerState.OFFLINE_MAINTENANCE if self._station.maintenance else WorkerState.OFFLINE
        if not self._met:
            return
        try:
            async with asyncio.timeout(FAREWELL_WITHIN):
                await persist(lambda: self._say(reports.report(self._station, state), True), "last heartbeat")
        except (TimeoutError, Fault) as fault:
            log.warning("the server was not told that this worker is offline: %s", fault or "no answer in time")
