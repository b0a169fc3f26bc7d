"""What signals mean to the daemon."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable

from edge_worker.station import Station


def heed(station: Station, reload: Callable[[], None]) -> None:
    """SIGTERM and SIGINT drain, a second one stops the jobs, too; SIGHUP reloads, SIGUSR1 hands over."""

    def leave(name: str) -> None:
        station.drain(f"{name} was received", "signal", at_once=station.departure is not None)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, leave, number.name)
        except NotImplementedError:
            # Windows' loop has no signal handlers of its own.
            signal.signal(number, lambda n, _: loop.call_soon_threadsafe(leave, signal.Signals(n).name))
    if sys.platform != "win32":
        loop.add_signal_handler(signal.SIGHUP, reload)
        loop.add_signal_handler(signal.SIGUSR1, station.hand_over, "SIGUSR1 was received")
        # Those that came since the daemon was started.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP, signal.SIGUSR1})
