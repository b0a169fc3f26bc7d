"""What a run showed, judged from what its tasks and their logs left behind: pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Try = tuple[str, int, int]
"""One try of a task: the task's name, its map index, the try's number."""


@dataclass
class Outcome:
    """What one run showed. ``jobs`` are tries of mapped tasks that began; a try is ``doubled`` when it began twice,
    when it ran beside another try of its task, or when its effect came again although the fault had not killed it.
    Bytes are those of task logs."""

    fault: str
    seed: str
    missed: int = 0
    """1 where the fault found nobody to meet: it was not injected."""
    jobs: int = 0
    killed: int = 0
    """Tries that the fault killed, or that misbehaved and were ended for it."""
    lost: int = 0
    """Tasks that did not succeed, and tries that came to nothing though the fault had not killed them."""
    doubled: int = 0
    repeated: int = 0
    """Effects that came again in a new try, after the fault had killed the one before, which had had it."""
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


def judge_tasks(entries: Sequence[dict[str, Any]], tasks: int, killed: AbstractSet[Try], outcome: Outcome) -> None:
    """Count what the ledger shows of so many mapped tasks; ``killed`` are the tries that the fault may have killed."""
    noted: list[tuple[Try, str]] = [((e["task"], e["index"], e["try"]), e["event"]) for e in entries]
    starts = Counter(one for one, event in noted if event == "start")
    # Such a try is ended by design, before it could have its effect.
    misbehaved = {one for one, event in noted if event == "misbehaves"}
    gone = {(task, index, number) for task, index, last in starts for number in range(1, last)}
    lost = sorted(gone - killed - misbehaved)
    effects: dict[tuple[str, int], list[int]] = defaultdict(list)
    for (task, index, number), event in noted:
        if event == "effect":
            effects[task, index].append(number)
    pairs = [((*task, first), second > first) for task, tries in effects.items() for first, second in pairwise(tries)]
    outcome.jobs = sum(index >= 0 for _, index, _ in starts)
    outcome.killed = len(killed | misbehaved)
    outcome.repeated = sum(later and one in killed - misbehaved for one, later in pairs)
    outcome.doubled = sum(count - 1 for count in starts.values()) + sum(event == "overlap" for _, event in noted)
    outcome.doubled += len(pairs) - outcome.repeated
    outcome.lost = max(outcome.lost, tasks - len(effects)) + len(lost)
    if lost:
        outcome.notes.append(f"lost {lost}, killed {sorted(killed)}")
    if outcome.doubled:
        outcome.notes.append(f"starts {dict(starts)}, effects {dict(effects)}")


def judge_log(written: bytes, stored: bytes) -> tuple[int, int]:
    """Return how many bytes were lost on the way from the site to the centre, and how many are there too many."""
    pairs = zip(written, stored, strict=False)
    same = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(written), len(stored)))
    lost = len(written) - same if len(stored) <= len(written) else 0
    return lost, max(0, len(stored) - len(written))
