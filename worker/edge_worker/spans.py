"""The daemon's spans, built from what the loops report. The one around a job is made at its end, from what the journal
holds: so it survives a restart with the same ids."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from edge_otel.telemetry import context, names
from edge_otel.telemetry.context import Carrier
from edge_otel.telemetry.spans import Finished, Recorder
from edge_worker.faults import Fault
from edge_worker.journal import Maintenance, Ticket, Verdict
from edge_worker.subject import job_attributes

log = logging.getLogger(__name__)

EARLY = 1000
"""Spans that wait at most while the SDK is loaded."""

Values = dict[str, str | int | float]


def hand_over(workload: dict[str, Any], span: dict[str, str]) -> dict[str, Any]:
    """Return the workload with the daemon's span as the parent of the task's own."""
    ti = workload.get("ti")
    if not isinstance(ti, dict) or not ti.get("context_carrier"):
        return workload
    return {**workload, "ti": {**ti, "context_carrier": {**ti["context_carrier"], **span}}}


class Spans:
    """What happened here, as spans. Times are seconds since the epoch. Nothing here raises or blocks but for
    ``keep``, ``flush`` and ``close``."""

    def __init__(self, worker: str, recorder: Recorder, written: Callable[[], Awaitable[None]]) -> None:
        """``written`` returns when what was exported is on disk."""
        self._worker = worker
        self._recorder = recorder
        self._written = written
        self._early: deque[Finished] = deque(maxlen=EARLY)
        self._loading: threading.Thread | None = None

    def process(self, ticket: Ticket, verdict: Verdict, launch_mode: str) -> None:
        """A job has ended."""
        attributes: Values = {
            **job_attributes(ticket),
            names.MESSAGING_SYSTEM: "airflow",
            names.OPERATION_NAME: "process",
            names.OPERATION_TYPE: "process",
            names.WORKER_NAME: self._worker,
            names.JOB_CLAIM: ticket.claim,
            names.JOB_OUTCOME: verdict.outcome,
            names.JOB_LAUNCH_MODE: launch_mode,
        }
        known = {
            names.EXIT_CODE: verdict.exit_code,
            names.ERROR_TYPE: verdict.error_type,
            names.JOB_CPU_TIME: verdict.cpu_time,
            names.JOB_MEMORY_PEAK: verdict.memory_peak,
        }
        attributes.update((name, value) for name, value in known.items() if value is not None)
        start, end = ticket.confirmed_at, verdict.ended_at
        self._record(
            Finished(
                names.PROCESS, ticket.span, ticket.parent, start, end, attributes, ticket.queue, verdict.error or None
            )
        )

    def launched(self, ticket: Ticket, start: float, end: float, mode: str, error: str | None = None) -> None:
        """An attempt to start a job's process is over."""
        attributes: Values = {names.JOB_ID: ticket.id, names.JOB_LAUNCH_MODE: mode}
        if error is not None:
            attributes[names.ERROR_TYPE] = "launch_failed"
        self._record(
            Finished(names.LAUNCH, context.child_of(ticket.span), ticket.span, start, end, attributes, error=error)
        )

    def shipped(
        self,
        ticket: Ticket,
        carrier: Carrier,
        start: float,
        end: float,
        offset: int,
        length: int,
        result: int | Fault,
    ) -> None:
        """A chunk of a job's log was answered with this HTTP status, or could not be sent for a while."""
        attributes: Values = {names.JOB_ID: ticket.id, names.LOG_OFFSET: offset, names.LOG_BYTES: length}
        error = None
        status = result if isinstance(result, int) else getattr(result, "status", None)
        if isinstance(result, Fault):
            error, attributes[names.ERROR_TYPE] = str(result), result.kind
        if status:
            attributes[names.HTTP_STATUS] = status
        self._record(Finished(names.SHIP_LOG, carrier, ticket.span, start, end, attributes, error=error))

    def heartbeat(
        self, carrier: Carrier, start: float, end: float, state: str, jobs: int, by: str | None, fault: Fault | None
    ) -> None:
        """A heartbeat that is worth it was answered, or was not."""
        attributes: Values = {names.WORKER_STATE: state, names.JOBS_ACTIVE: jobs}
        self._own(names.HEARTBEAT, carrier, start, end, attributes, by, fault)

    def registered(
        self, carrier: Carrier, start: float, end: float, state: str, by: str | None, cause: str, fault: Fault | None
    ) -> None:
        """The worker was taken, or refused. ``start``: of the first attempt since it had no place there."""
        self._own(names.REGISTER, carrier, start, end, {names.WORKER_STATE: state, names.CAUSE: cause}, by, fault)

    def drained(self, start: float, end: float, jobs: int, cause: str) -> None:
        """The last job has ended of those that ran when the worker was asked to leave."""
        self._own(names.DRAIN, context.new_root(True), start, end, {names.JOBS_ACTIVE: jobs, names.CAUSE: cause})

    def maintained(self, maintenance: Maintenance, end: float) -> None:
        """Maintenance has ended."""
        start = maintenance.since or end
        self._own(names.MAINTENANCE, context.new_root(True), start, end, {names.CAUSE: maintenance.origin})

    async def keep(self) -> None:
        """Have everything on disk before this returns; where that takes long, it is only on its way."""
        if self._early or self._recorder.loaded:
            await asyncio.to_thread(self.flush)
            await self._written()

    def flush(self) -> None:
        """Have everything in the outbox before this returns."""
        if self._early:
            self._load()
        self._recorder.flush()

    def close(self) -> None:
        """Send what is left, for a bounded time."""
        if self._loading is not None:
            self._loading.join(2.0)
        self._recorder.close()

    def _own(
        self,
        span: names.Span,
        carrier: Carrier,
        start: float,
        end: float,
        attributes: Values,
        by: str | None = None,
        fault: Fault | None = None,
    ) -> None:
        attributes = {names.WORKER_NAME: self._worker, **attributes}
        if by is not None:
            attributes[names.TRANSPORT] = by
        if fault is not None:
            attributes[names.ERROR_TYPE] = fault.kind
        self._record(Finished(span, carrier, {}, start, end, attributes, error=str(fault) if fault else None))

    def _record(self, span: Finished) -> None:
        if not self._recorder.on or not context.sampled(span.context):
            return
        self._early.append(span)
        if self._recorder.loaded:
            self._pass_on()
        elif self._loading is None:
            # Some tenths of a second, which the event loop has not.
            self._loading = threading.Thread(target=self._load, name="load-spans", daemon=True)
            self._loading.start()

    def _load(self) -> None:
        try:
            self._recorder.load()
        except Exception:
            log.exception("Without the OpenTelemetry SDK there are no spans.")
        else:
            self._pass_on()

    def _pass_on(self) -> None:
        while True:
            try:
                span = self._early.popleft()
            except IndexError:
                return
            self._recorder.record(span)
