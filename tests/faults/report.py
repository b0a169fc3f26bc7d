"""What the runs of each fault showed together: a table, and the same as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.faults.catalogue import BY_NAME
from tests.faults.judgement import Outcome

COUNTED = (
    *("missed", "jobs", "killed", "lost", "doubled", "repeated"),
    *("bytes", "bytes_lost", "bytes_doubled", "left", "crashed", "by_hand"),
)
WIDTHS = {"runs": 6, **{name: max(len(name) + 2, 13 if name == "bytes" else 7) for name in COUNTED}}


def summary(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Return the sums over some runs."""
    return {"runs": len(outcomes), **{name: sum(getattr(o, name) for o in outcomes) for name in COUNTED}}


def by_fault(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Return the outcomes of each fault that had its turn, in the catalogue's order."""
    found = {name: [o for o in outcomes if o.fault == name] for name in BY_NAME}
    return {name: of_fault for name, of_fault in found.items() if of_fault}


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a line for each fault, and one for all."""
    rows = [(name, BY_NAME[name].injected, summary(of_fault)) for name, of_fault in by_fault(outcomes).items()]
    rows.append(("all", "", summary(outcomes)))
    width = max(len(injected) for _, injected, _ in rows) + 2
    titles = "".join(f"{name.replace('_', ' '):>{size}}" for name, size in WIDTHS.items())
    lines = [f"{'fault':<14}{'injected':<{width}}{titles}"]
    for name, injected, sums in rows:
        counts = "".join(f"{sums[column]:>{size},}" for column, size in WIDTHS.items())
        lines.append(f"{name:<14}{injected:<{width}}{counts}")
    return "\n".join(lines)


def store(outcomes: Sequence[Outcome], about: Mapping[str, Any], file: Path) -> None:
    """Write everything to a file, replacing the last."""
    file.parent.mkdir(exist_ok=True)
    faults = {
        name: {"injected": BY_NAME[name].injected, **summary(found)} for name, found in by_fault(outcomes).items()
    }
    runs = [asdict(outcome) for outcome in outcomes]
    result = {**about, "at": time.time(), "all": summary(outcomes), "faults": faults, "runs": runs}
    file.write_text(json.dumps(result, indent=1))
