"""Stops the jobs of a worker that was cut off for longer than its policy allows."""

from __future__ import annotations

import asyncio
import logging
import math

from edge_worker import contact
from edge_worker.disconnect import Pressure, press
from edge_worker.station import Station

log = logging.getLogger(__name__)

LOOK = 5.0
"""Seconds between looks at most: timers stand still while the machine sleeps."""


class Cutoff:
    """Performs the disconnect policy; the daemon goes on trying to reach the server."""

    def __init__(self, station: Station) -> None:
        self._station = station

    async def run(self) -> None:
        """Look again and again; never returns."""
        before = Pressure.NONE
        while True:
            policy = self._station.contact.policy
            after = policy.stop_after or math.inf
            told = f"The edge worker stopped the task: no server has answered for {after:g} s (stop-after)."
            pressure = press(policy, self._station.contact.silence(contact.clock()))
            for job in [job for job in self._station.jobs.values() if job.running]:
                if pressure is Pressure.STOP:
                    job.stop(told)
                elif pressure is Pressure.KILL:
                    await job.kill(told)
            if pressure is Pressure.NONE and before is not Pressure.NONE:
                self._station.room.set()
            before = pressure
            await asyncio.sleep(min(LOOK, after / 10))
