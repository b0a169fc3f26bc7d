"""The daemon's span around each job, built when the job has ended: so it survives a restart with the same ids."""

from __future__ import annotations

import logging
import os
import platform
import secrets
import socket
import threading
from typing import Any

from edge_otel import __version__
from edge_otel.telemetry import context, names
from edge_worker.journal import Ticket
from edge_worker.plan import Ending

log = logging.getLogger(__name__)

CLOSE_WITHIN = 3.0
"""Seconds for the last spans to leave; the exporter's own flush does not keep its timeout."""


def child_of(parent: dict[str, str]) -> dict[str, str]:
    """Return the context of a new span below ``parent``, sampled as that is; without one, an unsampled root."""
    found = context.valid(parent)
    if not found:
        return context.new_root()
    version, trace, _, flags = found["traceparent"].split("-")
    return {**found, "traceparent": f"{version}-{trace}-{secrets.token_hex(8)}-{flags}"}


def hand_over(workload: dict[str, Any], span: dict[str, str]) -> dict[str, Any]:
    """Return the workload with the daemon's span as the parent of the task's own."""
    ti = workload.get("ti")
    if not isinstance(ti, dict) or not ti.get("context_carrier"):
        return workload
    return {**workload, "ti": {**ti, "context_carrier": {**ti["context_carrier"], **span}}}


class Spans:
    """Exports spans where an OTLP endpoint is configured; else it does and loads nothing."""

    def __init__(self, worker: str) -> None:
        named = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        self.on = any(os.environ.get(name) for name in named) and not disabled
        self._worker = worker
        self._lock = threading.Lock()
        self._processor: Any = None
        self._resource: Any = None

    def record(self, ticket: Ticket, ending: Ending, ended_at: float, launch_mode: str) -> None:
        """Hand the job's span to the exporter. Blocking where the SDK must be loaded; never raises."""
        if not self.on or not _sampled(ticket.span):
            return
        try:
            with self._lock:
                if self._processor is None:
                    self._set_up()
            self._processor.on_end(self._span(ticket, ending, ended_at, launch_mode))
        except Exception:
            log.exception("job %s: its span is lost", ticket.id)

    def close(self) -> None:
        """Send what is left, for a bounded time."""
        if self._processor is None:
            return
        last = threading.Thread(target=self._processor.force_flush, name="last-spans", daemon=True)
        last.start()
        last.join(CLOSE_WITHIN)

    def _set_up(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._resource = Resource.create(
            {
                names.SERVICE_NAMESPACE: "airflow",
                names.SERVICE_NAME: "edge-worker",
                names.SERVICE_VERSION: __version__,
                names.WORKER_NAME: self._worker,
                names.HOST_NAME: socket.gethostname(),
                names.OS_TYPE: platform.system().lower(),
            }
        )
        self._processor = BatchSpanProcessor(OTLPSpanExporter())

    def _span(self, ticket: Ticket, ending: Ending, ended_at: float, launch_mode: str) -> Any:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import SpanKind, Status, StatusCode

        attributes: dict[str, str | int] = {
            names.MESSAGING_SYSTEM: names.SYSTEM,
            names.OPERATION_NAME: "process",
            names.OPERATION_TYPE: "process",
            names.QUEUE: ticket.queue,
            names.JOB_ID: ticket.id,
            names.DAG_ID: ticket.dag_id,
            names.TASK_ID: ticket.task_id,
            names.RUN_ID: ticket.run_id,
            names.MAP_INDEX: ticket.map_index,
            names.TRY_NUMBER: ticket.try_number,
            names.WORKER_NAME: self._worker,
            names.JOB_CLAIM: ticket.claim,
            names.JOB_OUTCOME: ending.outcome,
            names.JOB_LAUNCH_MODE: launch_mode,
        }
        if ending.exit_code is not None:
            attributes[names.EXIT_CODE] = ending.exit_code
        if ending.error_type:
            attributes[names.ERROR_TYPE] = ending.error_type
        status = Status(StatusCode.ERROR, ending.error) if ending.error_type else Status(StatusCode.UNSET)
        return ReadableSpan(
            name=names.process_span(ticket.queue),
            context=_context(ticket.span),
            parent=_context(ticket.parent),
            resource=self._resource,
            attributes=attributes,
            kind=SpanKind.CONSUMER,
            status=status,
            start_time=int(ticket.confirmed_at * 1e9),
            end_time=int(ended_at * 1e9),
            instrumentation_scope=InstrumentationScope("edge_worker", __version__),
        )


def _sampled(carrier: dict[str, str]) -> bool:
    parent = context.valid(carrier).get("traceparent")
    return bool(parent) and bool(int(parent[-2:], 16) & 1) if parent else False


def _context(carrier: dict[str, str]) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags, TraceState

    _, trace, span, flags = carrier["traceparent"].split("-")
    state = TraceState.from_header([carrier["tracestate"]]) if "tracestate" in carrier else None
    return SpanContext(int(trace, 16), int(span, 16), True, TraceFlags(int(flags, 16)), state)
