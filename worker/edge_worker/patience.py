"""Calls that are repeated until they are answered, however long that takes."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from edge_worker.faults import Fault, NotAllowed, Unreachable
from edge_worker.plan import BACKOFF_LAST, backoff, jittered, returning

log = logging.getLogger(__name__)

R = TypeVar("R")

AGAIN = 30.0
"""Seconds until what a defect has ended is done again."""


async def wait(event: asyncio.Event, timeout: float | None) -> bool:
    """Return whether ``event`` was set within ``timeout`` seconds (None: wait for ever)."""
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return False
    return True


def pause(attempt: int, fault: Unreachable | NotAllowed) -> float:
    """Return the seconds to wait after failure number ``attempt``, from 0."""
    if isinstance(fault, NotAllowed):
        return jittered(BACKOFF_LAST, random.random())  # noqa: S311 - jitter, not a secret
    pause = backoff(attempt, random.random())  # noqa: S311
    if fault.retry_after is None:
        return pause
    return max(pause, returning(fault.retry_after, random.random()))  # noqa: S311


async def persist(call: Callable[[], Awaitable[R]], what: str) -> R:
    """Return the answer to ``call``, repeated while the far end can not be reached or does not allow it yet.

    Other faults are raised. Cancelling is the only way to give up.
    """
    attempt = 0
    while True:
        try:
            return await call()
        except (Unreachable, NotAllowed) as fault:
            delay = pause(attempt, fault)
            # The first failures of a restart or a network hiccup are not worth a warning each.
            level = logging.WARNING if attempt in (2, 5) or attempt % 20 == 19 else logging.DEBUG
            log.log(level, "%s: %s; trying again (failure %d)", what, fault, attempt + 1)
            attempt += 1
        await asyncio.sleep(delay)


async def despite_defects(work: Callable[[], Awaitable[R]], what: str) -> R:
    """Return what ``work`` gives, done again where a defect has ended it. Faults are raised."""
    while True:
        try:
            return await work()
        except Fault:
            raise
        except Exception:
            log.exception("%s: a defect; trying again in %.0f s", what, AGAIN)
        await asyncio.sleep(AGAIN)


async def while_it_moves(work: Coroutine[Any, Any, None], left: Callable[[], int], within: float) -> bool:
    """Do ``work``, and cancel it when what is ``left`` of it has not become less for ``within`` seconds; return
    whether it was done."""
    task = asyncio.create_task(work)
    try:
        before = left()
        while not (await asyncio.wait({task}, timeout=within))[0]:
            if left() >= before:
                return False
            before = left()
        task.result()
        return True
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


HEEDED = 2.0
"""Seconds within which a changed interval is heeded."""


async def until_due(begun: float, interval: Callable[[], float]) -> None:
    """Wait until ``interval()`` seconds after ``begun``, a time of the monotonic clock."""
    while (left := begun + interval() - time.monotonic()) > 0:
        await asyncio.sleep(min(left, HEEDED))
