"""What one job may use of the machine: a pure judgement."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Of all processes of a job together; 0 is no limit."""

    memory: int = 0
    """MiB."""
    processes: int = 0

    def __bool__(self) -> bool:
        return self.memory > 0 or self.processes > 0


def exceeded(limits: Limits, memory: int, processes: int) -> str | None:
    """Return what a job whose processes use ``memory`` bytes is to be ended for; None where all is well."""
    if 0 < limits.processes < processes:
        return f"The job had {processes} processes, more than the {limits.processes} that --job-processes allows."
    if 0 < limits.memory * MIB < memory:
        used = f"{memory / MIB:.0f} MiB of memory"
        return f"The job's processes used {used}, more than the {limits.memory} MiB that --job-memory allows."
    return None
