"""Notes everything that workers are told of jobs, and says when it adds up to a job that is lost or doubled."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_otel.state import FINISHED, JobState

Key = tuple[str, int]
"""Id and claim of a job."""

HELD = (JobState.ASSIGNED, JobState.RUNNING)


@dataclass(frozen=True)
class Row:
    """A job as it is stored."""

    claim: int
    state: str
    worker: str | None


@dataclass
class _Job:
    row: Row
    rounds: list[int] = field(default_factory=lambda: [0])
    """The claim that the row had whenever the executor queued or withdrew it."""
    offered: dict[int, str] = field(default_factory=dict)
    asked: set[int] = field(default_factory=set)
    confirmed: dict[int, str] = field(default_factory=dict)
    stale: set[int] = field(default_factory=set)
    ended: dict[int, str] = field(default_factory=dict)

    def round_of(self, claim: int) -> int:
        return bisect_left(self.rounds, claim)


class Ledger:
    """By job, what its workers were told; every method raises AssertionError at what must never happen."""

    def __init__(self) -> None:
        self.story: list[str] = []
        """What was done and said so far."""
        self.jobs: dict[str, _Job] = {}
        self.abandoned: set[Key] = set()
        """What daemons held that are no more."""
        self.withdrawn: set[str] = set()
        self.confirmations = 0

    def note(self, what: str) -> None:
        """Add to the story."""
        self.story.append(what)

    def must(self, holds: bool, what: str) -> None:
        """Raise AssertionError with the whole story unless this holds."""
        if not holds:
            raise AssertionError("\n".join([what, *self.story]))

    def queued(self, job_id: str, row: Row) -> None:
        """The executor has queued a job, perhaps again; ``row`` as it is now."""
        self.withdrawn.discard(job_id)
        self._begin_round(job_id, row)

    def withdraw(self, job_id: str, row: Row) -> None:
        """The executor has withdrawn a job that was not finished; ``row`` as it is now."""
        self.must(row.state == JobState.LOST, f"{job_id}: withdrawn, and it is {row}")
        self.withdrawn.add(job_id)
        self._begin_round(job_id, row)

    def _begin_round(self, job_id: str, row: Row) -> None:
        job = self.jobs.get(job_id)
        if job is None:
            self.jobs[job_id] = _Job(row)
            return
        self.must(row.claim >= job.row.claim, f"{job_id}: the claim went from {job.row.claim} to {row.claim}")
        job.row = row
        if row.claim > job.rounds[-1]:
            job.rounds.append(row.claim)

    def see(self, rows: Mapping[str, Row]) -> None:
        """Compare the table with what it was the last time."""
        for job_id, job in self.jobs.items():
            row, before = rows[job_id], job.row
            self.must(row.claim >= before.claim, f"{job_id}: the claim went from {before.claim} to {row.claim}")
            if before.state in FINISHED:
                self.must(row == before, f"{job_id}: was finished as {before}, and is {row}")
            if row.state in (JobState.SUCCESS, JobState.FAILED):
                self.must(job.ended.get(row.claim) == row.state, f"{job_id}: {row}, but reported was {job.ended}")
            job.row = row

    def offer(self, key: Key, worker: str) -> None:
        """A worker was offered a job."""
        job = self.jobs[key[0]]
        self.must(key[1] not in job.offered, f"{key}: offered to {job.offered.get(key[1])}, and to {worker}")
        job.offered[key[1]] = worker

    def ask(self, key: Key) -> None:
        """A worker accepts."""
        job = self.jobs[key[0]]
        if job.round_of(key[1]) == len(job.rounds):
            job.asked.add(key[1])

    def confirm(self, key: Key, worker: str) -> None:
        """A worker was told that it may start the process."""
        job, claim = self.jobs[key[0]], key[1]
        self.must(
            job.offered.get(claim) == worker, f"{key}: offered to {job.offered.get(claim)}, confirmed to {worker}"
        )
        self.must(
            claim in job.asked, f"{key}: confirmed to {worker}, which asked after it was queued anew or withdrawn"
        )
        self.must(claim not in job.stale, f"{key}: confirmed to {worker} after it was told that it is stale")
        others = [c for c in job.confirmed if c != claim and job.round_of(c) == job.round_of(claim)]
        self.must(not others, f"{key}: confirmed to {worker}, and {others} to {[job.confirmed[c] for c in others]}")
        self.confirmations += claim not in job.confirmed
        job.confirmed[claim] = worker

    def stale(self, key: Key, worker: str, row: Row) -> None:
        """A worker was told that a job is not its own, or to stop it; ``row`` as it is now."""
        mine = row.claim == key[1] and row.worker == worker
        self.must(not (mine and row.state in HELD), f"{key}: {worker} was told that it is stale, and it is {row}")
        job = self.jobs[key[0]]
        if job.offered.get(key[1]) == worker and not (mine and row.state in FINISHED):
            job.stale.add(key[1])

    def workers(self) -> set[str]:
        """Return who was told to start a process."""
        return {worker for job in self.jobs.values() for worker in job.confirmed.values()}

    def end(self, key: Key, state: str) -> None:
        """A worker reports the end of a job that it was told to start."""
        self.jobs[key[0]].ended.setdefault(key[1], state)
