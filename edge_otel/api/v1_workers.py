"""v1: registration and heartbeats, as edge3 5.1.0 speaks them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Header, Request

from edge_otel.api import registration
from edge_otel.api.auth import Caller
from edge_otel.api.refusals import RESPONSES
from edge_otel.models import wishes, workers
from edge_otel.models.session import new_session
from edge_otel.settings import Settings
from edge_otel.telemetry import central_spans, context, counters
from edge_otel.telemetry.spans import Recorder
from edge_otel.wire import QueuesChange, WorkerName, WorkerReply, WorkerReport

router = APIRouter(prefix="/v1/worker", tags=["Worker"], responses=RESPONSES)

_HEARTBEATS = counters.HEARTBEATS.labels("polling")

TraceParent = Annotated[str | None, Header(description="W3C trace context")]


@router.post("/{worker_name}")
def register(
    worker_name: WorkerName, report: WorkerReport, caller: Caller, request: Request, traceparent: TraceParent = None
) -> WorkerReply:
    """Register a worker that starts."""
    settings: Settings = request.app.state.settings
    trace_id = context.trace_id({"traceparent": traceparent or ""})
    with new_session() as session:
        return registration.register(
            session, worker_name, report, caller, settings, datetime.now(UTC), trace_id=trace_id
        )


@router.patch("/{worker_name}")
def set_state(
    worker_name: WorkerName, report: WorkerReport, caller: Caller, request: Request, traceparent: TraceParent = None
) -> WorkerReply:
    """Heartbeat: store what the worker reports, answer what it should do."""
    settings: Settings = request.app.state.settings
    now = datetime.now(UTC)
    parent = context.valid({"traceparent": traceparent, "tracestate": request.headers.get("tracestate")})
    with _traced(request.app.state.spans, worker_name, report, parent):
        caller.require_worker(worker_name)
        with new_session() as session:
            known = workers.get(session, worker_name)
            caller.require_scope(known.team, known.queues)
            trace_id = context.trace_id(parent)
            worker = workers.heartbeat(session, worker_name, report, now, token_id=caller.token_id, trace_id=trace_id)
            told = registration.told(settings, settings.heartbeat_interval, now)
            reply = registration.reply(worker, False, told, now)
        _HEARTBEATS.inc()
        # After the commit: a worker that is refused for its version is still seen, and seen to drain.
        reply.versions_match = registration.check_versions(report.sysinfo, settings, edge3=report.session is None)
    return reply


@contextmanager
def _traced(spans: Recorder, worker: str, report: WorkerReport, parent: context.Carrier) -> Iterator[None]:
    """Record the span of a heartbeat."""
    began, error = datetime.now(UTC), ""
    try:
        yield
    except Exception as failure:
        error = type(failure).__name__
        raise
    finally:
        spans.record(central_spans.heard(report, worker, parent, began, datetime.now(UTC), error))


@router.patch("/queues/{worker_name}")
def update_queues(worker_name: WorkerName, change: QueuesChange, caller: Caller) -> None:
    """Add queues to a worker and remove others."""
    caller.require_worker(worker_name)
    caller.allowed_queues(change.new_queues)
    with new_session() as session:
        known = workers.get(session, worker_name)
        caller.require_scope(known.team, known.queues)
        wishes.change_queues(
            session, worker_name, change.new_queues or (), change.remove_queues or (), datetime.now(UTC), by=None
        )
