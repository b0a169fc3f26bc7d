"""What a run showed, judged from what its tasks and their logs left behind: pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Outcome:
    """What one run showed. ``jobs`` are tries that began; a try is ``doubled`` when it began twice, when it ran beside
    another try of its task, or when an effect came again although no task was killed. Bytes are those of task logs."""

    fault: str
    seed: str
    jobs: int = 0
    lost: int = 0
    doubled: int = 0
    repeated: int = 0
    """Effects that came again in a new try, after the fault had killed the one before."""
    bytes: int = 0
    bytes_lost: int = 0
    bytes_doubled: int = 0
    left: int = 0
    """Processes of the site that are there after its last job."""
    crashed: int = 0
    """Daemons that ended by themselves."""
    by_hand: int = 0
    """1 where the worker did not come back by itself."""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """Whether nothing was lost, doubled or needed a hand."""
        wrong = (self.lost, self.doubled, self.bytes_lost, self.bytes_doubled, self.left, self.crashed, self.by_hand)
        return not any(wrong)


def judge_tasks(entries: Sequence[dict[str, Any]], tasks: int, killed: bool, outcome: Outcome) -> None:
    """Count what the ledger shows of so many tasks; ``killed``: the fault may have killed some of their tries."""
    starts = Counter((e["task"], e["index"], e["try"]) for e in entries if e["event"] == "start")
    effects = Counter((e["task"], e["index"]) for e in entries if e["event"] == "effect")
    again = sum(count - 1 for count in effects.values())
    outcome.jobs = len(starts)
    outcome.doubled = sum(count - 1 for count in starts.values()) + sum(e["event"] == "overlap" for e in entries)
    if killed:
        outcome.repeated = again
    else:
        outcome.doubled += again
    outcome.lost = max(outcome.lost, tasks - len(effects))
    if outcome.doubled:
        outcome.notes.append(f"starts {dict(starts)}, effects {dict(effects)}")


def judge_log(written: bytes, stored: bytes) -> tuple[int, int]:
    """Return how many bytes were lost on the way from the site to the centre, and how many are there too many."""
    pairs = zip(written, stored, strict=False)
    same = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(written), len(stored)))
    lost = len(written) - same if len(stored) <= len(written) else 0
    return lost, max(0, len(stored) - len(written))
