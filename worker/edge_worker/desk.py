"""What answers those on this machine: the admin socket, and the health port where it is wanted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from edge_worker import admin
from edge_worker.endpoint import Endpoint
from edge_worker.reload import Reloaded
from edge_worker.station import Station

log = logging.getLogger(__name__)


class Desk:
    """Both of them."""

    def __init__(self, station: Station, reload: Callable[[], Reloaded]) -> None:
        """Take the health port. Raises BadSetting."""
        self._station, self._reload = station, reload
        self._admin: asyncio.Server | None = None
        self._checks: Endpoint | None = None
        if (port := station.settings.health_port) is not None:
            # Not before it is wanted: it costs memory.
            from edge_worker.checks import Checks, listen

            self._checks = Endpoint(listen(port), Checks(station))

    async def start(self) -> None:
        """Begin to answer. Raises OSError."""
        await self.tend()
        if self._checks is not None:
            await self._checks.start()
            log.info("health is told at %s", self._checks.url)

    async def tend(self) -> None:
        """Listen at the admin socket, or again where it was removed."""
        folder = self._station.settings.state_dir
        if self._admin is not None and (folder / admin.NAME).exists():
            return
        if self._admin is not None:
            self._admin.close()
            self._admin = None
        try:
            self._admin = await admin.serve(self._station, self._reload)
        except OSError as error:
            log.warning("edge-worker status and the like cannot ask this daemon: %s: %s", folder, error.strerror)

    def close(self) -> None:
        """Answer no more."""
        if self._checks is not None:
            self._checks.close()
        if self._admin is not None:
            self._admin.close()
            with suppress(OSError):
                (self._station.settings.state_dir / admin.NAME).unlink(missing_ok=True)
