"""A job's process from the wish that it ends to its last word."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

from edge_worker import processes
from edge_worker.journal import JobFolder, Result, Started
from edge_worker.site import Site

log = logging.getLogger(__name__)

RESULT_WITHIN = 5.0
"""Seconds in which whoever reaps a dead process has written its result."""


def claimant(folder: JobFolder, ended: Started) -> tuple[Started, bool]:
    """Return the process that has claimed the folder, after one of its processes has ended, and whether it lives."""
    try:
        found = folder.started() or ended
        return found, processes.alive(found)
    except (OSError, ValueError):
        # Nothing can be read: that one has ended is certain.
        return ended, False


async def result(site: Site, folder: JobFolder, process: Started | None) -> Result | None:
    """Return the result of a process that has ended; one who was killed is judged by its parent, a moment later.

    Where nothing could be written, or cannot be read, the parent's word alone remains.
    """
    code: int | None = None
    found: Result | None = None
    trouble: Exception | None = None
    try:
        async with asyncio.timeout(RESULT_WITHIN):
            code = await site.launcher.settled(folder)
            while True:
                try:
                    # Before the look: whoever reaps it writes first.
                    reaped = not processes.unreaped(process)
                    if (found := folder.result()) is not None or reaped:
                        break
                except OSError as error:
                    # Where open files are short, say, it may be read a moment later.
                    trouble = error
                await asyncio.sleep(0.02)
    except TimeoutError:
        # Whoever was to say so may hang.
        with suppress(OSError, ValueError):
            found = folder.result()
    except ValueError as error:
        trouble = error
    if found is None and trouble is not None:
        log.error("%s: its result cannot be read: %s", folder.path.name, trouble)
    if found is None and code is not None:
        found = Result(code, None, time.time())
    return found


async def kill(folder: JobFolder, process: Started | None, spare: bool = False) -> int:
    """Kill all that is left of a job, with ``spare`` but for its supervisor; return how many processes there were."""
    return 0 if process is None else await asyncio.to_thread(processes.kill, process, folder.logs, spare)
