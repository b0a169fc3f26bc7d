"""v1: registration and heartbeats, as edge3 5.1.0 speaks them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from airflow import __version__ as airflow_version
from fastapi import APIRouter, Header, Request

from edge_otel import __version__ as edge_version
from edge_otel import versions
from edge_otel.api.auth import Caller
from edge_otel.api.refusals import RESPONSES
from edge_otel.models import upkeep, workers
from edge_otel.models.session import new_session
from edge_otel.models.tables import Worker
from edge_otel.settings import Settings
from edge_otel.state import WorkerState
from edge_otel.telemetry import context
from edge_otel.wire import QueuesChange, SystemFacts, WorkerName, WorkerReply, WorkerReport, WorkerSettings

router = APIRouter(prefix="/v1/worker", tags=["Worker"], responses=RESPONSES)

TraceParent = Annotated[str | None, Header(description="W3C trace context")]


@router.post("/{worker_name}")
def register(
    worker_name: WorkerName, report: WorkerReport, caller: Caller, request: Request, traceparent: TraceParent = None
) -> WorkerReply:
    """Register a worker that starts."""
    caller.require_worker(worker_name)
    settings: Settings = request.app.state.settings
    report.queues = caller.allowed_queues(report.queues)
    team = caller.team_for(report.team_name)
    match = _check_versions(report.sysinfo, settings, edge3=report.session is None)
    now = datetime.now(UTC)
    with new_session() as session:
        worker = workers.register(
            session,
            worker_name,
            report,
            now,
            token_id=caller.token_id,
            team=team,
            heartbeat_interval=report.heartbeat_interval or settings.heartbeat_interval,
            trace_id=context.trace_id({"traceparent": traceparent or ""}),
        )
        if report.jobs is not None:
            kept = [(str(job.id), job.claim) for job in report.jobs]
            upkeep.return_offers_of(session, worker_name, kept, now)
        return _reply(worker, match, settings, now)


@router.patch("/{worker_name}")
def set_state(
    worker_name: WorkerName, report: WorkerReport, caller: Caller, request: Request, traceparent: TraceParent = None
) -> WorkerReply:
    """Heartbeat: store what the worker reports, answer what it should do."""
    caller.require_worker(worker_name)
    settings: Settings = request.app.state.settings
    now = datetime.now(UTC)
    with new_session() as session:
        trace_id = context.trace_id({"traceparent": traceparent or ""})
        known = workers.get(session, worker_name)
        caller.require_scope(known.team, known.queues)
        worker = workers.heartbeat(session, worker_name, report, now, token_id=caller.token_id, trace_id=trace_id)
        reply = _reply(worker, False, settings, now)
    # After the commit: a worker that is refused for its version is still seen, and seen to drain.
    reply.versions_match = _check_versions(report.sysinfo, settings, edge3=report.session is None)
    return reply


@router.patch("/queues/{worker_name}")
def update_queues(worker_name: WorkerName, change: QueuesChange, caller: Caller) -> None:
    """Add queues to a worker and remove others."""
    caller.require_worker(worker_name)
    caller.allowed_queues(change.new_queues)
    with new_session() as session:
        known = workers.get(session, worker_name)
        caller.require_scope(known.team, known.queues)
        workers.change_queues(session, worker_name, change.new_queues or (), change.remove_queues or ())


def _check_versions(sysinfo: SystemFacts, settings: Settings, *, edge3: bool) -> bool:
    core, edge = sysinfo.get("airflow_version"), sysinfo.get("edge_provider_version")
    match = versions.check(
        None if core is None else str(core),
        airflow_version,
        settings.minimum_acceptable_core_version_for_workers,
        "Airflow",
    )
    # The numbers of edge3 say nothing about ours: only the minimum can refuse one.
    lowest = settings.minimum_acceptable_edge_version_for_workers or "0"
    same = versions.check(None if edge is None else str(edge), edge_version, lowest, "the edge package")
    return match and (same or edge3)


def _reply(worker: Worker, match: bool, settings: Settings, now: datetime) -> WorkerReply:
    return WorkerReply(
        state=WorkerState(worker.state),
        last_update=now,
        queues=worker.queues,
        maintenance_comments=worker.maintenance_comment,
        concurrency=worker.slots_wanted,
        versions_match=match,
        settings=WorkerSettings(
            heartbeat_interval=settings.heartbeat_interval,
            poll_interval=settings.job_poll_interval,
            log_interval=settings.log_interval,
            log_chunk_bytes=settings.log_chunk_bytes,
            execution_api_url=settings.execution_api_url or None,
            server_time=now,
        ),
    )
