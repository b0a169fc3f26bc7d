"""What becomes of the jobs while the server does not answer: a pure decision, and how its policy is written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

KEEP, STOP_AFTER = "keep", "stop-after"
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*([smhd]?)")
_LONGEST = 365 * 86_400


class Pressure(Enum):
    """What is done to the jobs."""

    NONE = "none"
    STOP = "stop"
    KILL = "kill"


@dataclass(frozen=True)
class Policy:
    """What a lost link means. Durations are in seconds."""

    stop_after: float | None = None
    """Without an answer, until jobs are stopped; None keeps them."""
    grace: float = 10.0
    """From SIGTERM to SIGKILL."""

    @property
    def stopped_after(self) -> float | None:
        """The silence after which no job runs any more."""
        return None if self.stop_after is None else self.stop_after + self.grace


def read_policy(text: str) -> float | None:
    """Return the seconds of ``stop-after DURATION``, None for ``keep``; raises ValueError with what to write."""
    name, _, duration = text.strip().partition(" ")
    if name == KEEP and not duration:
        return None
    found = _DURATION.fullmatch(duration.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if name != STOP_AFTER or not 1 <= seconds <= _LONGEST:
        raise ValueError("give keep, or stop-after and a duration from 1s to 365d, such as: stop-after 30m")
    return seconds


def press(policy: Policy, silence: float) -> Pressure:
    """Return what is done to the jobs when the server has not answered for ``silence`` seconds."""
    if policy.stop_after is None or silence < policy.stop_after:
        return Pressure.NONE
    return Pressure.STOP if silence < policy.stop_after + policy.grace else Pressure.KILL
