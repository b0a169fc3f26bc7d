"""What the demo prints: numbered seconds for every step, and plain tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from demo.airflow_api import label

EVERY = 10.0
"""Seconds between two signs of life during a long wait."""


class Steps:
    """Prints each step with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Print one step."""
        print(f"[{time.monotonic() - self._began:6.1f} s] {text}", flush=True)

    def waiting(self, what: str) -> Callable[[float], None]:
        """Return a listener for a wait, which prints a sign of life now and then."""
        due = EVERY

        def tell(waited: float) -> None:
            nonlocal due
            if waited >= due:
                due += EVERY
                self.say(f"  … still waiting for {what} ({waited:.0f} s)")

        return tell


def title(text: str) -> None:
    """Print a heading."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print columns as wide as their widest cell."""
    body = [head, *rows]
    widths = [max(len(row[column]) for row in body) for column in range(len(head))]
    for row in body:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def tasks(found: Iterable[dict[str, Any]]) -> None:
    """Print the task instances of a run and where they ran."""
    table(
        ("task", "state", "tries", "ran on", "seconds"),
        [
            (
                label(task),
                str(task["state"]),
                str(task["try_number"]),
                task["hostname"] or "-",
                f"{task['duration'] or 0:.1f}",
            )
            for task in found
        ],
    )


def excerpt(lines: Sequence[str], head: int = 8, last: int = 4) -> None:
    """Print the beginning and the end of a log."""
    shown = (
        lines if len(lines) <= head + last else [*lines[:head], f"… {len(lines) - head - last} lines …", *lines[-last:]]
    )
    for line in shown:
        print(f"  {line}")
