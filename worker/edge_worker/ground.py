"""Whether the state folder can be written, looked at again and again; what was removed there is made anew."""

from __future__ import annotations

import asyncio
import logging

from edge_worker import status
from edge_worker.desk import Desk
from edge_worker.faults import BadSetting
from edge_worker.journal import Journal
from edge_worker.station import Station

log = logging.getLogger(__name__)

LOOK = 5.0
"""Seconds between looks."""


class Ground:
    """Keeps the state folder usable: no jobs are taken while it is not, and none is ended for it."""

    def __init__(self, station: Station, journal: Journal, desk: Desk) -> None:
        self._station = station
        self._journal = journal
        self._desk = desk

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            trouble = await self._look()
            self._station.grounded(trouble)
            if trouble is None and self._journal.left:
                await asyncio.to_thread(self._journal.sweep)
            await asyncio.sleep(LOOK)

    async def _look(self) -> str | None:
        """Return in words why the folder cannot be used; None where it can."""
        try:
            if await status.ask_disk(self._station, self._journal.mend):
                log.warning("%s had been removed, at least in part, and is made anew", self._journal.path)
        except OSError as error:
            return error.strerror or str(error)
        except BadSetting as problem:
            return str(problem)
        await self._desk.tend()
        return await status.trouble_writing(self._station)
