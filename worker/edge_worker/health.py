"""How well the worker is, and whether that takes it out of work or back. Levels are those of logging."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

INFO, WARNING, ERROR = 20, 30, 40

_NAMES = {"info": INFO, "warning": WARNING, "warn": WARNING, "error": ERROR, "critical": ERROR}

MARGIN = 2.0
"""Percentage points below its threshold at which a level that was reached is left again."""


@dataclass(frozen=True)
class Thresholds:
    """Percentages in use from which on the level is this; 0 is never."""

    warning: float
    error: float


@dataclass(frozen=True)
class Health:
    """The worst of all that was judged."""

    level: int = INFO
    reason: str = ""
    """What is worst, with figures; empty while nothing is bad."""
    certain: bool = True
    """Nothing that is to be judged is unknown: only then it may be called good."""
    disk: int = INFO
    memory: int = INFO


def read_status(value: object) -> int | None:
    """Return the level that a user's ``status`` means: a logging level, or the name of one; None for rubbish."""
    if isinstance(value, str):
        name = value.strip().lower()
        value = int(name) if name.isdecimal() and name.isascii() and len(name) < 4 else _NAMES.get(name)
    if value is None or not isinstance(value, int | float):
        return None
    return ERROR if value >= ERROR else WARNING if value >= WARNING else INFO


def level_of(percent: float | None, thresholds: Thresholds, before: int) -> int:
    """Return the level of a percentage in use after level ``before``; the same where it is not known."""
    if percent is None:
        return before
    for level, threshold in ((ERROR, thresholds.error), (WARNING, thresholds.warning)):
        if threshold and percent >= threshold - (MARGIN if before >= level else 0):
            return level
    return INFO


def judge(
    before: Health,
    percents: tuple[float | None, float | None],
    thresholds: tuple[Thresholds, Thresholds],
    folder: str,
    told: tuple[int | None, str] | None,
    unwritable: str | None = None,
) -> Health:
    """Return the health now. The pairs are disk and memory, in percent in use, None where the system does not tell;
    ``folder`` is what the disk holds. ``told``: the level of the user's function and why, the level None while it is
    not known; None without a function. ``unwritable``: why the folder cannot be written."""
    disk, memory = percents
    levels = (level_of(disk, thresholds[0], before.disk), level_of(memory, thresholds[1], before.memory))
    found = [(levels[0], f"Disk of {folder} at {disk or 0:.0f} %"), (levels[1], f"Memory at {memory or 0:.0f} %")]
    if told is not None and told[0] is not None:
        found.append((told[0], told[1]))
    if unwritable is not None:
        found.append((ERROR, f"{folder} cannot be written: {unwritable}"))
    level = max(level for level, _ in found)
    reason = "; ".join(text for of, text in found if of == level and level > INFO)
    return Health(level, reason, told is None or told[0] is not None, *levels)


@dataclass(frozen=True)
class Rules:
    """When the worker leaves work by itself, and when it comes back by itself; None is never."""

    on: int | None
    exit: int | None

    @classmethod
    def named(cls, on: str, exit: str) -> Rules:
        """Return the rules of two settings: ``error``, ``warning``, ``info`` or ``off``."""
        return cls(_NAMES.get(on), _NAMES.get(exit))

    @property
    def for_ever(self) -> bool:
        """Whether a person must end what has begun by itself."""
        return self.on is not None and self.exit is None


class Act(Enum):
    """What automatic maintenance does."""

    NOTHING = "nothing"
    BEGIN = "begin"
    END = "end"


def decide(rules: Rules, health: Health, origin: str | None, excused: bool) -> tuple[Act, bool]:
    """Return what to do, and whether the worker is still excused.

    ``origin`` is that of the maintenance that is on, None for none. A worker is ``excused`` once a person has ended a
    maintenance: it is not put into another by itself before its health has been good once. Automatic maintenance that
    is remembered where there is none any more ends, whatever the health.
    """
    if rules.on is None:
        return (Act.END if origin == "automatic" else Act.NOTHING), False
    bad = health.level >= rules.on
    excused = excused and (bad or not health.certain)
    if bad:
        return (Act.BEGIN if origin is None and not excused else Act.NOTHING), excused
    ends = origin == "automatic" and health.certain and rules.exit is not None and health.level <= rules.exit
    return (Act.END if ends else Act.NOTHING), excused
