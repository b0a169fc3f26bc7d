"""Wait for a condition, and say what was waited for when it does not come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


class NotSeen(Exception):
    """What was waited for did not come in time."""


def wait_for(
    look: Callable[[], Value],
    what: str,
    *,
    timeout: float,
    pause: float = 0.2,
    progress: Callable[[float], None] | None = None,
) -> Value:
    """Return the first truthy value of ``look``; ``progress`` is told the seconds waited so far.

    :raises NotSeen: after ``timeout`` seconds, naming ``what``
    """
    began = time.monotonic()
    while True:
        value = look()
        if value:
            return value
        waited = time.monotonic() - began
        if waited > timeout:
            raise NotSeen(f"Waited {timeout:.0f} s for {what}.")
        if progress is not None:
            progress(waited)
        time.sleep(pause)
