"""How often the kernel has killed processes for want of memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def kills(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """Return the kills in this process's cgroup, where jobs run too; where it counts none, those of the machine.

    ``oom_kill`` of ``memory.events`` (cgroup v2) or ``memory.oom_control`` (v1), else of /proc/vmstat. None where the
    system does not tell. Which process it was is not counted.
    """
    for path in (*_cgroup_files(proc, cgroups), proc / "vmstat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        for line in text.splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill" and value.isdigit():
                return int(value)
    return None


def _cgroup_files(proc: Path, cgroups: Path) -> Iterator[Path]:
    """Yield where this process's cgroup counts. Format of /proc/self/cgroup: cgroups(7)."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # In a container the path may be the host's, and the container's own cgroup is mounted at the top.
        for below in (path.lstrip("/"), ""):
            if not controllers:
                yield cgroups / below / "memory.events"
            elif "memory" in controllers.split(","):
                yield cgroups / "memory" / below / "memory.oom_control"
