"""Limits of a job."""

from __future__ import annotations

import pytest
from edge_worker.limits import MIB, Limits, exceeded


@pytest.mark.parametrize(
    ("limits", "memory", "processes", "words"),
    [
        (Limits(), 10**12, 10**5, None),
        (Limits(memory=100), 100 * MIB, 10**5, None),
        (Limits(memory=100), 101 * MIB, 1, "used 101 MiB of memory, more than the 100 MiB that --job-memory"),
        (Limits(processes=5), 10**12, 5, None),
        (Limits(processes=5), 0, 6, "had 6 processes, more than the 5 that --job-processes"),
        (Limits(100, 5), 200 * MIB, 5, "--job-memory"),
    ],
)
def test_a_job_over_a_limit_is_ended_in_words(limits: Limits, memory: int, processes: int, words: str | None) -> None:
    said = exceeded(limits, memory, processes)
    assert said is None if words is None else said is not None and words in said


def test_only_a_limit_is_worth_a_look() -> None:
    assert not Limits()
    assert Limits(memory=1)
    assert Limits(processes=1)
