"""A job's process from the wish that it ends to its last word."""

from __future__ import annotations

import asyncio
import logging
import time

from edge_worker import processes
from edge_worker.journal import JobFolder, Result, Started
from edge_worker.site import Site

log = logging.getLogger(__name__)

RESULT_WITHIN = 5.0
"""Seconds in which whoever reaps a dead process has written its result."""


async def result(site: Site, folder: JobFolder, process: Started | None) -> Result | None:
    """Return the result of a process that has ended; one who was killed is judged by its parent, a moment later.

    Where nothing could be written the parent's word alone remains.
    """
    code = None
    try:
        async with asyncio.timeout(RESULT_WITHIN):
            code = await site.launcher.settled(folder)
            while (found := folder.result()) is None and processes.unreaped(process):
                await asyncio.sleep(0.02)
    except TimeoutError:
        found = folder.result()
    except ValueError as error:
        log.error("%s: its result cannot be read: %s", folder.path.name, error)  # noqa: TRY400
        found = None
    if found is None and code is not None:
        found = Result(code, None, time.time())
    return found


async def kill(folder: JobFolder, process: Started | None, spare: bool = False) -> int:
    """Kill all that is left of a job, with ``spare`` but for its supervisor; return how many processes there were."""
    return 0 if process is None else await asyncio.to_thread(processes.kill, process, folder.logs, spare)
