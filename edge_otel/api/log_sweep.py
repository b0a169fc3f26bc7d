"""Looks for logs that no request takes care of: those of finished jobs that are not in their file, and old ones."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from starlette.concurrency import run_in_threadpool

from edge_otel import remote_log
from edge_otel.api.log_files import Writer
from edge_otel.models import jobs, logs
from edge_otel.models.session import new_session

log = logging.getLogger(__name__)

INTERVAL = 10.0
"""Seconds between looks."""
_PAGE = 500
"""Logs that are looked at in one transaction."""
_PURGES = 20
"""Transactions of one look, of at most logs.PURGE_LIMIT logs each."""


def homes(*, exports: bool) -> logs.Homes:
    """Return where logs go beside the store, as Airflow is configured."""
    remote = remote_log.configured()
    return logs.Homes(
        only_here=isinstance(remote, remote_log.EdgeRemoteLog) and remote.inner is None,
        uploads=remote_log.sink() is not None,
        exports=exports,
    )


class Sweep:
    """Writes the logs of jobs whose worker died, whose rest came late, or for which the disk was full. A log that is
    not complete is written as far as it is there, and again when there is more."""

    def __init__(self, writer: Writer, homes: logs.Homes, retention: timedelta) -> None:
        self._writer = writer
        self._homes = homes
        self._retention = retention

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            for look in (self.write, self.purge):
                try:
                    await run_in_threadpool(look)
                except Exception:
                    log.warning("The look for unfinished or old logs failed; the next comes soon.", exc_info=True)
            await asyncio.sleep(INTERVAL)

    def write(self) -> None:
        """Write every log that is complete, or of which there is more than was written before."""
        unwritten: list[str] = []
        while True:
            with new_session() as session:
                page = jobs.with_log_to_write(session, unwritten[-1] if unwritten else "", _PAGE)
                stored = logs.lengths_of(session, [job.id for job in page])
                missing = {job.id: logs.missing(job, stored[job.id]) for job in page}
            for job_id, lengths in stored.items():
                if self._writer.is_due(job_id, lengths, whole=not missing[job_id]):
                    self._writer.finalise(job_id)
            unwritten += stored
            if len(stored) < _PAGE:
                break
        self._writer.forget_but(unwritten)

    def purge(self) -> None:
        """Delete the logs that nobody will read here any more."""
        kept_since = datetime.now(UTC) - self._retention
        for _ in range(_PURGES):
            with new_session() as session:
                more = logs.purge(session, self._homes, kept_since)
            if not more:
                return
