"""A worker's load over the last hour, for sparklines: pure, from what its heartbeats report."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

SPACING = 60
"""Seconds from one sample to the next."""

KEPT = 60
"""Samples."""

_FACTS = {"cpu": "cpu_percent", "memory": "memory_percent"}
"""Series, and the fact that each is taken from."""


def extended(history: Mapping[str, Any], facts: Mapping[str, Any], now: datetime, interval: float) -> dict[str, Any]:
    """Return the history with these facts in it, where a sample is due; ``interval``: seconds between heartbeats.

    It is empty, or ``{"at": …, "cpu": […], "memory": […]}``: ``at`` is the time of the newest sample in seconds since
    the epoch, the others are of every ``SPACING`` seconds before it, oldest first, in whole percent; None is where
    nothing was reported, or nothing that can be.
    """
    if not due(history, now):
        return dict(history)
    moment = int(now.timestamp())
    sample = {series: _percent(facts.get(fact)) for series, fact in _FACTS.items()}
    steps = (moment - history["at"]) // SPACING if history else 0
    if not 0 < steps < KEPT:
        # The first; or the clock that it was kept by was ahead; or nothing of it is of the last hour.
        reported = any(value is not None for value in sample.values())
        return {"at": moment, **{series: [value] for series, value in sample.items()}} if reported else {}
    # A heartbeat speaks of the time since the one before, unless some were missed.
    missed = steps * SPACING > max(SPACING, 2 * interval)
    new = {series: [None if missed else value] * (steps - 1) + [value] for series, value in sample.items()}
    return {
        "at": history["at"] + steps * SPACING,
        **{series: [*history[series], *values][-KEPT:] for series, values in new.items()},
    }


def due(history: Mapping[str, Any], now: datetime) -> bool:
    """Return whether the history will have another sample. Clocks of several servers differ a little."""
    return not history or abs(int(now.timestamp()) - history["at"]) >= SPACING


def _percent(value: Any) -> int | None:
    return round(value) if isinstance(value, int | float) and 0 <= value <= 100 else None
