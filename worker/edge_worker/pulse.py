"""Heartbeats and registrations, each in a trace of its own; recorded where they tell something."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Protocol

from edge_otel.state import WorkerState
from edge_otel.telemetry import context
from edge_otel.telemetry.context import Carrier
from edge_otel.wire import WorkerReply, WorkerReport
from edge_worker import plan, subject
from edge_worker.faults import Disconnected, Fault, Refused
from edge_worker.meters import Meters
from edge_worker.spans import Spans


class PulseTransport(Protocol):
    """What heartbeats need of the wire. Its calls raise Fault."""

    @property
    def using(self) -> str | None:
        """The transport in use."""

    async def register(self, report: WorkerReport, carrier: Carrier) -> WorkerReply:
        """Announce this daemon."""

    async def beat(self, report: WorkerReport, carrier: Carrier) -> WorkerReply:
        """Send a heartbeat."""


class Pulse:
    """Speaks for the worker. A trace context travels in every case; whether it is recorded is another matter."""

    def __init__(self, transport: PulseTransport, spans: Spans, meters: Meters, sampling: Callable[[], float]) -> None:
        self._transport = transport
        self._spans = spans
        self._meters = meters
        self._sampling = sampling
        self._reported: WorkerState | None = None
        """The state that the server knows."""
        self._cause = "start"
        """Of the next registration."""
        self._joining: tuple[Carrier, float] | None = None
        """Context and start of the registration under way: it may take many attempts."""

    async def register(self, report: WorkerReport) -> WorkerReply:
        """Announce this daemon; return the answer. Raises Fault."""
        carrier, since = self._joining = self._joining or (context.new_root(True), time.time())
        subject.is_heartbeat(carrier)
        try:
            reply = await self._transport.register(report, carrier)
        except Refused as fault:
            self._joined(report, carrier, since, fault)
            raise
        self._joined(report, carrier, since, None)
        if self._cause != "start":
            self._meters.registered_again()
        self._reported, self._cause = report.state, "forgotten"
        return reply

    def _joined(self, report: WorkerReport, carrier: Carrier, since: float, fault: Fault | None) -> None:
        self._joining = None
        by = self._transport.using
        self._spans.registered(carrier, since, time.time(), report.state.value, by, self._cause, fault)

    async def beat(self, report: WorkerReport) -> WorkerReply:
        """Send a heartbeat; return the answer. Raises Fault."""
        sampled = report.state is not self._reported or random.random() < self._sampling()  # noqa: S311
        carrier, by = context.new_root(sampled), self._transport.using
        begun = (time.time(), time.monotonic())
        subject.is_heartbeat(carrier)
        try:
            reply = await self._transport.beat(report, carrier)
        except Fault as fault:
            if isinstance(fault, Disconnected):
                self._cause = "reconnect"
            self._judge(report, carrier, begun, by, fault)
            raise
        self._judge(report, carrier, begun, by, None)
        self._reported = report.state
        return reply

    def _judge(
        self, report: WorkerReport, carrier: Carrier, begun: tuple[float, float], by: str | None, fault: Fault | None
    ) -> None:
        """``begun``: seconds since the epoch, and of the monotonic clock."""
        start, seconds = begun[0], time.monotonic() - begun[1]
        self._meters.heartbeat(seconds, fault is None)
        if plan.notable(context.sampled(carrier), fault is not None, seconds):
            recorded = context.recorded(carrier)
            subject.is_heartbeat(recorded)
            self._spans.heartbeat(recorded, start, start + seconds, report.state.value, report.jobs_active, by, fault)
