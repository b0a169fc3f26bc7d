"""Registration of a worker, the same over v1 and over the channel: what its token allows, its version, its row."""

from __future__ import annotations

import logging
import os
from datetime import datetime

from airflow import __version__ as airflow_version

from edge_otel import __version__ as edge_version
from edge_otel import versions
from edge_otel.api import task_tokens
from edge_otel.api.auth import Principal
from edge_otel.models import upkeep, workers
from edge_otel.models.session import Session
from edge_otel.models.tables import Worker
from edge_otel.models.wakeup import announce_worker
from edge_otel.settings import Settings, airflow_configuration
from edge_otel.state import WorkerState
from edge_otel.telemetry import central, counters
from edge_otel.wire import SystemFacts, WorkerReply, WorkerReport, WorkerSettings

log = logging.getLogger(__name__)


def register(
    session: Session,
    name: str,
    report: WorkerReport,
    caller: Principal,
    settings: Settings,
    now: datetime,
    *,
    trace_id: str | None,
    connection: str | None = None,
    heartbeat_interval: float | None = None,
) -> WorkerReply:
    """Store the worker and return what it is told. ``connection``: of its channel; ``heartbeat_interval``: seconds, as
    this server wants it now. Raises EdgeError where the token, the version or another worker stands against it."""
    caller.require_worker(name)
    report.queues = caller.allowed_queues(report.queues)
    team = caller.team_for(report.team_name)
    match = check_versions(report.sysinfo, settings, edge3=report.session is None)
    interval = heartbeat_interval or settings.heartbeat_interval
    before = workers.session_of(session, name)
    worker = workers.register(
        session,
        name,
        report,
        now,
        token_id=caller.token_id,
        team=team,
        heartbeat_interval=report.heartbeat_interval or interval,
        trace_id=trace_id,
        connection=connection,
    )
    # Another server may hold an older channel of this worker.
    announce_worker(session, name)
    if report.jobs is not None:
        known = {(str(job.id), job.claim) for job in report.jobs}
        for queue in upkeep.return_offers_of(session, name, known, now):
            counters.JOBS_REQUEUED.labels(queue, "registered").inc()
        # A daemon that connects again has all that it ran, also what it took after these words of its were written.
        for job in upkeep.lose_forgotten(session, name, known, now) if report.session != before else ():
            log.warning("Job %s is lost: worker %s came back without it.", job.id, name)
    return reply(worker, match, told(settings, interval, now), now)


def check_versions(sysinfo: SystemFacts, settings: Settings, *, edge3: bool) -> bool:
    """Return whether the worker's versions are this server's; raise VersionRefused where they are not accepted."""
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


def reply(worker: Worker, match: bool, settings: WorkerSettings, now: datetime) -> WorkerReply:
    """Return what a worker with this row is told."""
    return WorkerReply(
        state=WorkerState(worker.state),
        last_update=now,
        queues=worker.queues,
        maintenance_comments=worker.maintenance_comment,
        maintenance_origin=worker.maintenance_origin,
        concurrency=worker.slots_wanted,
        versions_match=match,
        settings=settings,
    )


def told(settings: Settings, heartbeat_interval: float, now: datetime) -> WorkerSettings:
    """Return the pace and the places that a worker is told."""
    return WorkerSettings(
        heartbeat_interval=heartbeat_interval,
        poll_interval=settings.job_poll_interval,
        log_interval=settings.log_interval,
        log_chunk_bytes=settings.log_chunk_bytes,
        execution_api_url=settings.execution_api_url or None,
        executors=airflow_configuration().get("core", "executor"),
        server_time=now,
        otlp=central.collector(settings, os.environ) is not None,
        telemetry_interval=settings.telemetry_interval,
        heartbeat_sampling=settings.heartbeat_sampling,
        token_renewal=task_tokens.available(),
    )
