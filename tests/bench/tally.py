"""What simulated workers saw: how long answers took, and who was given which job."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.bench.spread import percentile

Claim = tuple[str, int]
"""Worker and claim number."""


@dataclass
class Tally:
    """Counts since the last ``reset``; jobs since the beginning. Times are in seconds."""

    heartbeats: list[float] = field(default_factory=list)
    """From a heartbeat to its ack."""
    offered: list[float] = field(default_factory=list)
    """From a job's being queued to its offer."""
    confirmed: list[float] = field(default_factory=list)
    """From a job's being queued to its confirmation."""
    welcomed: int = 0
    broken: int = 0
    """Connections that ended though nobody wanted it."""
    refused: int = 0
    stale: int = 0
    errors: list[str] = field(default_factory=list)
    """What servers said was wrong."""
    holders: dict[str, set[Claim]] = field(default_factory=lambda: defaultdict(set))
    """By job, everyone to whom it was confirmed."""
    ended: set[str] = field(default_factory=set)
    """Jobs whose end was acknowledged."""

    def reset(self) -> None:
        """Forget times and counts, but no job."""
        for times in (self.heartbeats, self.offered, self.confirmed):
            times.clear()
        self.welcomed = self.broken = self.refused = self.stale = 0

    def doubled(self) -> int:
        """Return how many jobs were confirmed to more than one, or more than once under different claims."""
        return sum(len(holders) > 1 for holders in self.holders.values())

    def lost(self, jobs: Iterable[str]) -> int:
        """Return how many of these jobs did not come to an acknowledged end."""
        return len(set(jobs) - self.ended)

    def times(self) -> dict[str, float]:
        """Return the spread of all times."""
        return {
            f"{name}_p{round(share * 100)}_s": percentile(times, share)
            for name, times in (
                ("heartbeat", self.heartbeats),
                ("offered", self.offered),
                ("confirmed", self.confirmed),
            )
            for share in (0.5, 0.99)
        }
