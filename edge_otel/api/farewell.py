"""Says goodbye in time: a server that stops closes its WebSockets before it ends an application's lifespan."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SAID_WITHIN = 0.05
"""Seconds for goodbyes: the server closes without a word."""


@contextmanager
def on_signals(leave: Callable[[], None]) -> Iterator[None]:
    """Call ``leave`` in the running event loop at SIGTERM or SIGINT, and a moment later the server's own handler."""
    if threading.current_thread() is not threading.main_thread():
        # A server in a thread gets no signals.
        yield
        return
    loop = asyncio.get_running_loop()
    handlers: dict[signal.Signals, Any] = {}

    heeded = False

    def heed(number: int, frame: FrameType | None) -> None:
        nonlocal heeded
        if heeded:
            handlers[signal.Signals(number)](number, frame)
        else:
            heeded = True
            loop.call_soon_threadsafe(go, number)

    def go(number: int) -> None:
        leave()
        loop.call_later(SAID_WITHIN, handlers[signal.Signals(number)], number, None)

    for number in (signal.SIGTERM, signal.SIGINT):
        handlers[number] = signal.getsignal(number)
        if callable(handlers[number]):
            signal.signal(number, heed)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is heed:
                signal.signal(number, handler)
