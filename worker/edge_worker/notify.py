"""What systemd, or another that keeps services, is told of the daemon. Protocol: sd_notify(3)."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from contextlib import suppress

from edge_otel.state import observe
from edge_worker import status
from edge_worker.station import Station

log = logging.getLogger(__name__)

INTERVAL = 5.0
"""Seconds between looks at the daemon; less where a watchdog is more impatient."""


class Notifier:
    """Speaks to the socket that the environment names; without one, to nobody. Never raises, never blocks."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # The first byte of an abstract address is written as @ there.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        patience = environment.get("WATCHDOG_USEC", "")
        ours = environment.get("WATCHDOG_PID") in (None, str(os.getpid()))
        usec = int(patience) if patience.isdecimal() and ours else 0
        # Twice at least within the time after which systemd takes the daemon for dead.
        self.interval = min(INTERVAL, usec / 3e6) if usec else INTERVAL

    def say(self, *lines: str) -> None:
        """Send assignments such as ``READY=1``."""
        if not lines or not self._address or not hasattr(socket, "AF_UNIX"):
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.setblocking(False)
            speaker.sendto("\n".join(lines).encode(), self._address)


async def watch(station: Station, notifier: Notifier) -> None:
    """Tell again and again how the daemon is; the watchdog hears nothing while a loop is stuck."""
    # Not only once it is registered: a site whose link is down has a good daemon, which must not be started again.
    notifier.say("READY=1")
    told, before = "", list[str]()
    while True:
        reasons = status.stuck(station)
        if reasons and not before:
            log.critical("stuck: %s", "; ".join(reasons))
        before = reasons
        text = summary(station)
        notifier.say(*([f"STATUS={text}"] if text != told else ()), *(() if reasons else ("WATCHDOG=1",)))
        told = text
        await asyncio.sleep(notifier.interval)


def summary(station: Station) -> str:
    """Return the daemon's state in a few words."""
    way = station.transport or "server not reached"
    leaving = f", leaving: {station.reason}" if station.departure is not None else ""
    return f"{observe(station.facts).value}, {len(station.jobs)} jobs, {way}{leaving}"
