"""New tokens for tasks whose own have expired while the server was away."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from edge_worker import subject
from edge_worker.faults import Refused, Stale, Unreachable
from edge_worker.jobs import Job
from edge_worker.journal import Ticket
from edge_worker.station import Station

log = logging.getLogger(__name__)

LOOK = 2.0
"""Seconds between looks for supervisors that ask."""


class ReissueTransport(Protocol):
    """What it needs of the wire."""

    async def renew_token(self, ticket: Ticket) -> str:
        """Return a new token for the Execution API. Raises Fault."""


class Reissue:
    """Brings what the supervisors of running tasks ask for. The worker's own token never reaches them."""

    def __init__(self, station: Station, transport: ReissueTransport) -> None:
        self._station = station
        self._transport = transport

    async def run(self) -> None:
        """Look for supervisors that ask while the server answers; never returns."""
        while True:
            await self._station.registered.wait()
            for job in [job for job in self._station.jobs.values() if job.running and job.folder.wants_token()]:
                with subject.of_job(job.ticket):
                    if not await self._renew(job):
                        break
            await asyncio.sleep(LOOK)

    async def _renew(self, job: Job) -> bool:
        """Return whether the server can be asked for more."""
        try:
            job.folder.give_token(await self._transport.renew_token(job.ticket))
        except Stale as stale:
            job.revoke(stale.detail, cancelled=False)
        except Unreachable as fault:
            log.debug("job %s: no new token: %s", job.ticket.id, fault)
            return False
        except Refused as fault:
            log.warning("job %s: the server gives no new token: %s", job.ticket.id, fault)
        except OSError as error:
            log.warning("job %s: its new token cannot be written: %s", job.ticket.id, error)
        else:
            log.info("job %s: its task has a new token", job.ticket.id)
        return True
