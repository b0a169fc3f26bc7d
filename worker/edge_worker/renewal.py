"""Notices that the environment of tasks was changed below a running daemon: new packages are used from then on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from edge_worker.faults import BadSetting
from edge_worker.host import TaskInterpreter
from edge_worker.patience import wait
from edge_worker.station import Station

log = logging.getLogger(__name__)

LOOK = 15.0
"""Seconds between looks. Two that are alike tell that an installation is over."""


async def follow(
    interpreter: TaskInterpreter, station: Station, asked: asyncio.Event, outdated: Callable[[str], None]
) -> None:
    """Look until cancelled, and at once when ``asked`` to. ``outdated`` is told why processes that hold the former
    packages are to start no more jobs."""
    known = before = await asyncio.to_thread(interpreter.mark)
    while True:
        at_once = await wait(asked, LOOK)
        asked.clear()
        mark = await asyncio.to_thread(interpreter.mark)
        settled, before = at_once or mark == before, mark
        if mark == known or not settled:
            continue
        try:
            versions = await asyncio.to_thread(TaskInterpreter(interpreter.python).versions)
        except BadSetting as problem:
            log.warning("the environment of tasks has changed and is not usable now: %s", problem)
            continue
        known = mark
        outdated("the packages of tasks have changed")
        log.info("the environment of tasks has changed; it has Airflow %s", versions["airflow_version"])
        if versions != station.watch.versions:
            station.watch.renew(versions)
            station.register_anew()
