"""One job from its offer to the last acknowledged byte of its log."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from edge_otel.wire import JobReport
from edge_worker import oom, processes, starting, stopping, subject, tasklog
from edge_worker.endings import Ending, judge_ending, rose
from edge_worker.faults import LaunchFailed, Refused, Stale
from edge_worker.journal import UNMEASURED, JobFolder, Result, Started, Ticket, Verdict
from edge_worker.logfile import LogFile
from edge_worker.logs import LogShipper
from edge_worker.patience import persist, while_it_moves
from edge_worker.plan import Readopted
from edge_worker.site import Site

log = logging.getLogger(__name__)

STALE = "stale"
"""Outcome of a job that is not this worker's any more."""

CANCELLED = "Cancelled"

REMOVED = "The worker's folder of this task was removed while it ran. What it had not seen of this log is lost."

REST_WITHIN = 60.0
"""Seconds without progress after which the rest of the log of a job that was taken away is given up."""


class Job:
    """One claim of one job."""

    def __init__(self, site: Site, folder: JobFolder, ticket: Ticket, process: Started | None = None) -> None:
        """``process`` runs it already."""
        self._site = site
        self._folder = folder
        self.ticket = ticket
        self.active = True
        """Holds its slots: offered, or running as far as is known."""
        self.unreported = True
        self._process = process
        self._stopped: str | None = None
        self._verdict: Verdict | None = None
        self._revoked: asyncio.Future[Stale] = asyncio.get_running_loop().create_future()
        self._shipper = LogShipper(site.shipping, ticket, LogFile(folder.log_file(ticket), folder.logs, folder.memory))
        self._shipping: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether it is this worker's to run, and has not been seen to end."""
        return self.active and self.ticket.confirmed_at > 0

    @property
    def process(self) -> Started | None:
        """The process that runs it."""
        return self._process

    @property
    def folder(self) -> JobFolder:
        """Where its supervisor asks for a new token."""
        return self._folder

    @property
    def backlog(self) -> int:
        """Bytes of its log that the server does not have yet."""
        return self._shipper.backlog

    def stop(self, reason: str) -> None:
        """Ask the process to end; ``reason`` becomes the job's error."""
        if self.active and self._stopped is None:
            self._stopped = reason
            with subject.of_job(self.ticket):
                log.warning("job %s: SIGTERM: %s", self.ticket.id, reason)
            if self._process is not None:
                processes.terminate(self._process)

    def revoke(self, reason: str, cancelled: bool) -> None:
        """Have the process stopped, and its log sent as far as it came: the job is not this worker's any more.

        One that has ended goes on: its report is answered, and the log may be wanted. So does one that was not
        confirmed: its acceptance is answered.
        """
        if self.running and not self._revoked.done():
            self._revoked.set_result(Stale(409, CANCELLED if cancelled else "StaleClaim", reason))

    def lose_sight(self) -> None:
        """Hold slots only while a process of the job lives: a defect has ended ``run``, and may do so each time."""
        with suppress(OSError, ValueError):
            self._process = self._process or self._folder.started()
        self.active = self.active and self._process is not None and processes.may_live(self._process)

    def succeed(self, before: Job) -> None:
        """Do what was asked while a defect had lost sight of the job."""
        if before._stopped is not None:
            self.stop(before._stopped)
        if self.running and before._revoked.done():
            self._revoked = before._revoked

    async def kill(self, reason: str, spare: bool = False) -> None:
        """Kill what is left of the job, with ``spare`` but for its supervisor; ``reason`` becomes the job's error."""
        if self.active:
            self._stopped = self._stopped or reason
            with subject.of_job(self.ticket):
                log.warning("job %s: SIGKILL: %s", self.ticket.id, reason)
            await stopping.kill(self._folder, self._process, spare)

    async def run(self, how: Readopted = Readopted.ACCEPT) -> None:
        """Do all that is left to do for the job; cancelling leaves it to the next daemon."""
        try:
            verdict = self._verdict = self._folder.verdict()
            if verdict is not None and verdict.outcome == STALE:
                await self._abandon(verdict, self._ship(resume=True))
                return
            if how is Readopted.ACCEPT:
                if not await self._accept():
                    self._site.forget(self._folder)
                    return
                self._site.changed()
                try:
                    self._folder.save(self.ticket)
                    self._process = await starting.start(self._site, self._folder, self.ticket)
                    if self._stopped is not None:
                        await stopping.kill(self._folder, self._process)
                except (LaunchFailed, OSError) as error:
                    await self._give_up(f"The task could not be started: {error}")
            elif how is Readopted.WATCH:
                log.info("job %s: adopted, pid %s", self.ticket.id, self._process.pid if self._process else None)
            await self._see_through(self._ship(resume=how is not Readopted.ACCEPT))
            self._site.forget(self._folder)
        except Stale as stale:
            log.warning("job %s: not ours any more: %s", self.ticket.id, stale)
            why = "cancelled" if stale.error == CANCELLED else "stale_claim"
            verdict = Verdict(False, None, stale.detail, UNMEASURED, None, time.time(), outcome=STALE, error_type=why)
            self._save(verdict)
            assert self._shipping is not None
            await self._abandon(verdict, self._shipping)
        finally:
            if self._shipping is not None:
                self._shipping.cancel()
                await asyncio.gather(self._shipping, return_exceptions=True)

    async def _accept(self) -> bool:
        report = JobReport.model_validate({"task_instance_id": self.ticket.id, "claim": self.ticket.claim})
        what = f"acceptance of job {self.ticket.id}"
        try:
            await persist(lambda: self._site.transport.report(self.ticket, "running", report), what)
        except Refused as refusal:
            log.warning("job %s: not started: %s", self.ticket.id, refusal)
            self.unreported = False
            return False
        self.ticket = replace(self.ticket, confirmed_at=time.time(), oom_kills=oom.kills())
        return True

    async def _give_up(self, error: str) -> None:
        """End a job that never ran."""
        await self._explain(error)
        self._verdict = await self._conclude(
            Ending(False, None, error, "failed", "launch_failed"), Result(None, error, time.time())
        )

    def _ship(self, resume: bool) -> asyncio.Task[None]:
        self._shipping = asyncio.create_task(self._shipper.ship(resume), name=f"log-{self.ticket.id}")
        return self._shipping

    async def _see_through(self, shipping: asyncio.Task[None]) -> None:
        watching = asyncio.create_task(self._watch(), name=f"watch-{self.ticket.id}")
        try:
            first: set[asyncio.Future[Any]] = {shipping, watching, self._revoked}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if shipping.done() and not watching.done() and not self._revoked.done():
                if isinstance(shipping.exception(), Stale):
                    await shipping
                # A log that is not taken does not end the job, which may still be taken away.
                await asyncio.wait(first - {shipping}, return_when=asyncio.FIRST_COMPLETED)
            if not watching.done() and self._revoked.done():
                raise self._revoked.result()
            self._verdict = await watching
            self.active = False
            self._site.changed()
            await asyncio.gather(self._record(self._verdict), self._deliver(self._verdict, shipping))
            self._mark(log_shipped=True)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self) -> Verdict:
        if self._verdict is not None:
            return self._verdict
        code: int | None = None
        while (process := self._process) is not None:
            code = await processes.ended(process)
            self._process, lives = stopping.claimant(self._folder, process)
            if not lives:
                break
        process = self._process
        result = await stopping.result(self._site, self._folder, process) or Result(code, None, time.time())
        out_of_memory = rose(self.ticket.oom_kills, oom.kills())
        restarted = process is not None and processes.rebooted_since(process)
        ending = judge_ending(
            result.exit_code, result.error, self._stopped, result.task_state, out_of_memory, restarted
        )
        if process is not None and ending.outcome == "killed":
            # Without its supervisor a task would go on unseen, beside the next try of it.
            await stopping.kill(self._folder, process)
            await self._explain(ending.error or "")
        return await self._conclude(ending, result)

    async def _explain(self, error: str) -> None:
        path = self._folder.log_file(self.ticket)
        await asyncio.to_thread(tasklog.explain, path, error, self._folder.path / "output")

    async def _conclude(self, ending: Ending, result: Result) -> Verdict:
        """Measure the log and write down how the job ended."""
        if await asyncio.to_thread(self._folder.restore):
            await self._explain(REMOVED)
        length, digest = await self._shipper.measure()
        error = ending.error.encode(errors="backslashreplace").decode()[:4000] if ending.error else None
        verdict = Verdict(
            ending.succeeded,
            ending.exit_code,
            error,
            length,
            digest,
            result.time,
            outcome=ending.outcome,
            error_type=ending.error_type,
            cpu_time=result.cpu_time,
            memory_peak=result.memory_peak,
        )
        await asyncio.to_thread(self._save, verdict, lasting=True)
        level, why = logging.INFO if ending.succeeded else logging.WARNING, f": {error}" if error else ""
        log.log(level, "job %s: %s, exit code %s%s", self.ticket.id, ending.outcome, ending.exit_code, why)
        return verdict

    async def _record(self, verdict: Verdict) -> None:
        """Bring the job's spans to the disk, once: only a daemon that is killed meanwhile sends them twice."""
        if verdict.recorded or not verdict.outcome:
            return
        ticket, mode = self.ticket, self._site.launcher.mode
        if (process := self._process or self._folder.started()) is not None:
            self._site.spans.launched(ticket, ticket.confirmed_at, process.time, mode)
        self._site.spans.process(ticket, verdict, mode)
        self._site.meters.ended(ticket, verdict)
        await self._site.spans.keep()
        self._mark(recorded=True)

    async def _deliver(self, verdict: Verdict, shipping: asyncio.Task[None]) -> None:
        self._shipper.finish(verdict.log_length)
        if not verdict.reported:
            await self._report(verdict)
        self.unreported = False
        self._site.changed()
        try:
            await shipping
        except Stale as stale:
            log.warning("job %s: the rest of its log is not wanted: %s", self.ticket.id, stale)
        else:
            if not self._shipper.backlog and self._shipper.end != verdict.log_length:
                # Bytes went missing after the end was told. The log says so, and would else never be complete.
                self._mark(log_length=self._shipper.end, log_sha256=None, reported=False)
                await self._report(replace(verdict, log_length=self._shipper.end, log_sha256=None))
        # The last spans of the log.
        await self._site.spans.keep()

    async def _report(self, verdict: Verdict) -> None:
        said = {name: getattr(verdict, name) for name in ("exit_code", "error", "log_length", "log_sha256")}
        report = JobReport.model_validate({"task_instance_id": self.ticket.id, "claim": self.ticket.claim, **said})
        state, what = "success" if verdict.succeeded else "failed", f"end of job {self.ticket.id}"
        try:
            await persist(lambda: self._site.transport.report(self.ticket, state, report), what)
        except Stale as stale:
            # A task that was deferred may run elsewhere already; the log of its first part is still wanted.
            log.warning("job %s: its end is not wanted any more: %s", self.ticket.id, stale)
        except Refused as refusal:
            log.error("job %s: the server does not take its end: %s", self.ticket.id, refusal)  # noqa: TRY400
        self._mark(reported=True)

    async def _abandon(self, verdict: Verdict, shipping: asyncio.Task[None]) -> None:
        """Stop a job that is not ours, and send the rest of its log. ``verdict`` is in the folder for a next daemon."""
        self.unreported = False
        if self._process is not None:
            await processes.stop(self._process, self._site.settings().kill_grace, self._folder.logs)
        await stopping.result(self._site, self._folder, self._process)
        self.active = False
        self._site.changed()
        self._verdict = verdict
        if verdict.log_length == UNMEASURED:
            length, digest = await self._shipper.measure()
            self._mark(log_length=length, log_sha256=digest, ended_at=time.time())
        await self._record(self._verdict)
        # Else the server has said that it takes no more.
        if not shipping.done():
            rest = self._deliver(self._verdict, shipping)
            if not await while_it_moves(rest, lambda: self._shipper.backlog, REST_WITHIN):
                log.warning("job %s: %d bytes of its log were not sent", self.ticket.id, self._shipper.backlog)
        self._site.forget(self._folder)

    def _mark(self, **changes: Any) -> None:
        assert self._verdict is not None
        self._verdict = replace(self._verdict, **changes)
        self._save(self._verdict)

    def _save(self, verdict: Verdict, lasting: bool = False) -> None:
        try:
            self._folder.save(verdict, lasting)
        except OSError as error:
            log.error("job %s: cannot write its report: %s", self.ticket.id, error)  # noqa: TRY400
