"""What the daemon says to the server of itself, as of now."""

from __future__ import annotations

import time

from edge_otel.state import WorkerState, observe
from edge_otel.wire import FetchRequest, WorkerReport
from edge_worker.contact import clock
from edge_worker.station import Station


def report(station: Station, state: WorkerState | None = None) -> WorkerReport:
    """Return a report of the facts, or of ``state``."""
    facts = station.facts
    station.reported_at = time.time()
    station.contact.sending(clock())
    jobs = [
        {"id": id_, "claim": claim, "slots": job.ticket.slots if job.active else 0}
        for (id_, claim), job in station.jobs.items()
        if job.active or job.unreported
    ]
    # Before the server has taken this daemon it says nothing that might be refused: a refusal would end it.
    lines = station.tail.unanswered(anew=not station.registered.is_set()) if station.last_contact is not None else None
    maintenance, skew = station.maintenance, station.clock_skew
    local = maintenance is not None and maintenance.origin in ("local", "automatic")
    return WorkerReport.model_validate(
        {
            "state": state or observe(facts),
            "jobs_active": facts.jobs,
            "queues": station.queues,
            "sysinfo": {
                **station.watch.facts,
                "concurrency": station.concurrency,
                "free_concurrency": station.free,
                "log_backlog": station.log_backlog,
                "outbox_size": station.outbox.size,
                "outbox_dropped": sum(station.outbox.dropped.values()),
                **station.contact.facts,
                **({} if skew is None else {"clock_skew": round(skew, 3)}),
            },
            "maintenance_comments": maintenance.comment if maintenance else None,
            "maintenance_origin": maintenance.origin if maintenance and local else None,
            "team_name": station.settings.team,
            "session": station.session,
            "heartbeat_interval": station.pace().heartbeat_interval,
            "jobs": jobs,
            "log": lines,
        }
    )


def question(station: Station) -> FetchRequest:
    """Return the question for one job."""
    return FetchRequest(
        queues=station.queues,
        team_name=station.settings.team,
        free_concurrency=station.free,
        supports_task_instance_uuid=True,
        claims=True,
        session=station.session,
    )
