"""What comes to the daemon when supervisors and zygotes are killed: the dead are taken away, the living ended."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress

from edge_worker import kin, processes
from edge_worker.leftovers import adopt_orphans
from edge_worker.station import Station

log = logging.getLogger(__name__)

GAP = 0.5
"""Seconds between looks."""


def strangers(me: int, mine: frozenset[int], starting: bool, among: kin.Table) -> list[kin.Seen]:
    """Return the children that have come to process ``me``, which has started, or knows, ``mine``.

    What is in its own session is its own. While a job is ``starting``, a leader of a session may be its supervisor.
    """
    session = among[me].session
    return [
        seen
        for seen in among.values()
        if seen.parent == me
        and seen.pid not in mine
        and seen.session != session
        and not (starting and seen.pid == seen.session)
    ]


class Orphans:
    """Looks when a child has died."""

    def __init__(self, station: Station, started: Callable[[], Iterable[int]]) -> None:
        """``started`` returns the pids of the daemon's children in sessions of their own which are not jobs'."""
        self._station = station
        self._started = started
        self._met: frozenset[str] = frozenset()
        self._before: frozenset[str | int] | None = None
        """Children of the shell, say, that has become the daemon; and their sessions, for what comes of them."""

    async def run(self) -> None:
        """Look again and again; returns where orphans do not come here."""
        # To a container's first process they come in any case.
        if sys.platform == "win32" or not (adopt_orphans() or os.getpid() == 1):
            return
        if self._before is None:
            before = [seen for seen in kin.table().values() if seen.parent == os.getpid()]
            self._before = frozenset(mark for seen in before for mark in (seen.identity, seen.session))
        died = asyncio.Event()
        # Before somebody listened, or while a defect had ended this.
        died.set()
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, died.set)
        while True:
            await died.wait()
            died.clear()
            while await self._look():
                await asyncio.sleep(GAP)
            await asyncio.sleep(GAP)

    async def _look(self) -> bool:
        """Do what there is to do; return whether there may be more."""
        # First: whom this look finds has been noted by then, if the daemon has started it.
        among = await asyncio.to_thread(kin.table)
        jobs = list(self._station.jobs.values())
        mine = frozenset([*self._started(), *(job.process.pid for job in jobs if job.process is not None)])
        starting = any(job.running and job.process is None for job in jobs)
        found = strangers(os.getpid(), mine, starting, among)
        # To a container's first process people's orphans come, too.
        spared = self._before or ()
        living = [
            seen
            for seen in found
            if seen.living and seen.identity not in spared and seen.session not in spared and os.getpid() != 1
        ]
        for seen in found:
            if not seen.living and sys.platform != "win32":
                with suppress(ChildProcessError):
                    os.waitpid(seen.pid, os.WNOHANG)
        for seen in living:
            # Who is seen twice has not been started just now.
            if seen.identity in self._met:
                log.warning("process %d was left behind and is killed", seen.pid)
                processes.send(seen, processes.KILL)
        self._met = frozenset(seen.identity for seen in living)
        # A job may have seen its process end before that came here: nobody waits for it then, and no signal is to come.
        awaited = any(seen.pid in mine and seen.parent == os.getpid() and not seen.living for seen in among.values())
        return bool(living) or starting or awaited
