"""A selector that may be asked again by those who handle what it has returned; run by the task interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def keep_fresh(selector: Any) -> None:
    """Have ``selector`` return its events one by one, and none any more once it has been asked anew.

    Who was asked meanwhile may have read what the other events were about, or closed it: to read it again would block
    for ever. Nothing is lost: what is still ready is returned the next time.
    """
    select = selector.select
    asked = 0

    def fresh(timeout: float | None = None) -> Iterator[Any]:
        nonlocal asked
        asked += 1
        return events(select(timeout), asked)

    def events(ready: list[Any], mine: int) -> Iterator[Any]:
        for event in ready:
            if asked != mine:
                return
            yield event

    selector.select = fresh
