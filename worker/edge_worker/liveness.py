"""Whether the daemon lives, and whether it is ready for jobs: judged from what its loops do and what it has heard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

INTERVALS, SLACK = 3.0, 5.0
"""Heartbeat intervals, and seconds beyond them, for which the last contact counts as recent."""


@dataclass(frozen=True)
class Doing:
    """What a loop does."""

    what: str
    since: float
    """On the monotonic clock, as ``now`` below."""
    within: float | None = None
    """Seconds in which it is done with that; None where it may take as long as it takes."""


@dataclass(frozen=True)
class Standing:
    """What readiness is judged from."""

    registered: bool
    contact_age: float | None
    """Seconds since the server answered a heartbeat; None before the first answer."""
    interval: float
    """Seconds between heartbeats."""
    leaving: str | None
    """Why, while no more jobs are taken because the daemon leaves."""
    maintenance: str | None
    """Its comment, while in maintenance."""
    unwritable: str | None
    """What is wrong with the state folder."""


def overdue(loops: Mapping[str, Doing], now: float) -> list[str]:
    """Return in words which loops are stuck; a daemon with such a one needs a restart."""
    return [
        f"{loop}: {doing.what} for {now - doing.since:.0f} s, which takes {doing.within:.0f} s at most"
        for loop, doing in loops.items()
        if doing.within is not None and now - doing.since > doing.within
    ]


def unready(standing: Standing) -> list[str]:
    """Return in words why no jobs are taken now; empty where they are."""
    reasons = []
    if not standing.registered:
        reasons.append("not registered with the server")
    if standing.contact_age is None:
        reasons.append("the server has not answered yet")
    elif standing.contact_age > INTERVALS * standing.interval + SLACK:
        reasons.append(f"the server has not answered for {standing.contact_age:.0f} s")
    if standing.leaving is not None:
        reasons.append(f"leaving: {standing.leaving}")
    if standing.maintenance is not None:
        reasons.append(f"in maintenance{f': {standing.maintenance}' if standing.maintenance else ''}")
    if standing.unwritable is not None:
        reasons.append(f"the state folder cannot be written: {standing.unwritable}")
    return reasons
