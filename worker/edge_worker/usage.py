"""What the processes of jobs use: sums over the process trees of those that run, by queue. Blocking."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from edge_otel.telemetry import names
from edge_worker import kin, processes
from edge_worker.journal import Started
from edge_worker.readings import Readings

Key = tuple[str, int]
"""Job and claim."""

LATE = 10_000
"""Ends of jobs that wait at most to be counted."""


@dataclass(frozen=True)
class Running:
    """A job whose process runs."""

    key: Key
    queue: str
    process: Started


@dataclass
class _Sum:
    cpu: float = 0.0
    memory: int = 0
    processes: int = 0


class JobUsage:
    """Keeps count of CPU time so that it never goes back, although processes end."""

    def __init__(self) -> None:
        self._last: dict[Key, tuple[str, float]] = {}
        self._over: dict[str, float] = {}
        """By queue: of the jobs that have ended."""
        self._ends: deque[tuple[Key, str, float | None]] = deque(maxlen=LATE)
        self._known: set[Key] = set()
        """Jobs of which the end is counted, and which may still be looked at."""

    def ended(self, key: Key, queue: str, cpu: float | None) -> None:
        """Heed that a job has ended and used ``cpu`` seconds, None where nobody knows. From any thread."""
        self._ends.append((key, queue, cpu))

    def read(self, running: Sequence[Running]) -> Readings:
        """Return the sums by queue, of every queue that there ever was."""
        while self._ends:
            key, queue, cpu = self._ends.popleft()
            self._known.add(key)
            self._finish(key, queue, cpu or 0.0)
        self._known &= {job.key for job in running}
        present = [job for job in running if job.key not in self._known]
        for key in self._last.keys() - {job.key for job in present}:
            self._finish(key, self._last[key][0], 0.0)
        sums: dict[str, _Sum] = defaultdict(_Sum)
        among = kin.table() if present else {}
        for job in present:
            found = sums[job.queue]
            cpu = _add(found, job.process, among)
            # A child that nobody waited for takes its time with it.
            cpu = max(cpu, self._last.get(job.key, ("", 0.0))[1])
            self._last[job.key] = (job.queue, cpu)
            found.cpu += cpu
        for queue, cpu in self._over.items():
            sums[queue].cpu += cpu
        return {
            names.JOBS_CPU: [(found.cpu, {names.QUEUE: queue}) for queue, found in sums.items()],
            names.JOBS_MEMORY: [(found.memory, {names.QUEUE: queue}) for queue, found in sums.items()],
            names.JOBS_PROCESSES: [(found.processes, {names.QUEUE: queue}) for queue, found in sums.items()],
        }

    def _finish(self, key: Key, queue: str, cpu: float) -> None:
        self._over[queue] = self._over.get(queue, 0.0) + max(cpu, self._last.pop(key, ("", 0.0))[1])


def _add(found: _Sum, root: Started, among: kin.Table) -> float:
    """Add a tree's memory and processes; return its seconds of CPU, those of children that were waited for included."""
    if not processes.alive(root):
        return 0.0
    seconds = 0.0
    for seen in kin.trees([root.pid], among):
        with suppress(psutil.Error):
            times = psutil.Process(seen.pid).cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
            found.memory += seen.memory
            found.processes += 1
    return seconds
