"""A job's process from the order to its first breath."""

from __future__ import annotations

import logging
import time

from edge_worker.environment import for_job
from edge_worker.faults import LaunchFailed
from edge_worker.journal import JobFolder, Started, Ticket
from edge_worker.site import Site

log = logging.getLogger(__name__)

ATTEMPTS = 2
"""Launches of a job before it is reported failed."""


async def start(site: Site, folder: JobFolder, ticket: Ticket) -> Started:
    """Start the job of ``folder``, and return its process. Raises LaunchFailed and OSError."""
    url = site.execution_api_url()
    log_file = folder.log_file(ticket)
    folder.order(
        {
            "worker": site.worker,
            "server": url,
            "renews": site.renews(),
            "contact": str(site.contact),
            "env": for_job(site.task_env(), folder.logs, url, site.executors()),
            "log_file": str(log_file) if log_file else None,
            "grace": site.settings().kill_grace,
            "nice": site.settings().job_nice,
        }
    )
    for attempt in range(1, ATTEMPTS + 1):
        begun, ticks = time.time(), time.monotonic()
        error: str | None = None
        try:
            process: Started | None = await site.launcher.launch(folder)
        except LaunchFailed as failure:
            error = str(failure)
            log.warning("job %s: launch %d of %d failed: %s", ticket.id, attempt, ATTEMPTS, error)
            process = folder.started()
        seconds = time.monotonic() - ticks
        if process is None:
            # The span of a launch that was right is made at the job's end: so it survives a kill of the daemon.
            site.spans.launched(ticket, begun, begun + seconds, site.launcher.mode, error)
        site.meters.launched(seconds, site.launcher.mode, error is None)
        if process is not None:
            log.info("job %s: started, pid %d", ticket.id, process.pid)
            return process
    raise LaunchFailed(error)
