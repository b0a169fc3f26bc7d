"""Keeps jobs within their limits: looks at what their processes use, and ends a job that uses more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from edge_worker import kin, processes
from edge_worker.jobs import Job
from edge_worker.limits import Limits, exceeded
from edge_worker.station import Station

INTERVAL = 0.5
"""Seconds between looks: what a job can do beyond its limit until it is seen. One look takes milliseconds."""

UNLIMITED = 5.0
"""Seconds between looks for a limit that a reload may bring."""


class Guard:
    """Looks at all running jobs again and again."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._over: set[tuple[str, int]] = set()
        """Jobs that were over a limit at the last look."""

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL if self._limits else UNLIMITED)
            if not self._limits:
                continue
            jobs = {key: job for key, job in self._station.jobs.items() if job.running and job.process is not None}
            over = await asyncio.to_thread(self._look, jobs) if jobs else {}
            # The supervisor is left to tell Airflow; should it be what uses so much, it is next.
            await asyncio.gather(*(jobs[key].kill(why, spare=key not in self._over) for key, why in over.items()))
            self._over = set(over)

    @property
    def _limits(self) -> Limits:
        return Limits(self._station.settings.job_memory, self._station.settings.job_processes)

    def _look(self, jobs: dict[tuple[str, int], Job]) -> dict[tuple[str, int], str]:
        among = kin.table()
        found = {}
        for key, job in jobs.items():
            assert job.process is not None
            members = kin.of_job(job.process, processes.same, among)
            why = exceeded(self._limits, sum(seen.memory for seen in members), len(members))
            # That counts each page as often as it is shared: a cheap look that acquits nearly all.
            if why and (why := exceeded(self._limits, used(members), len(members))):
                found[key] = why
        return found


def used(members: Sequence[kin.Seen]) -> int:
    """Return the bytes of memory that processes use together.

    Shared pages count in parts (PSS) where the system shows that, else fully for each who has them.
    """
    return sum(_proportional(seen.pid) or seen.memory for seen in members)


def _proportional(pid: int) -> int | None:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        # Airflow's processes do not show it but to root.
        pass
    return None
