"""All processes of the system at a moment, and which of them are a job's. Blocking, a few milliseconds."""

from __future__ import annotations

import mmap
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from edge_worker.journal import Started

Table = Mapping[int, "Seen"]


@dataclass(frozen=True)
class Seen:
    """A process as it was seen."""

    pid: int
    parent: int
    session: int
    identity: str
    """As of ``processes.identity``."""
    living: bool
    """Not a zombie."""
    memory: int
    """Bytes that are resident, of which some may be shared."""


def table() -> Table:
    """Return all processes by pid."""
    return _from_psutil() if sys.platform != "linux" else _from_proc()


@cache
def boot() -> str:
    """Return the id of this run of the machine; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _from_proc() -> Table:
    found = {}
    page = mmap.PAGESIZE
    for name in os.listdir("/proc"):  # noqa: PTH208 - ten times as fast
        if not name.isdigit():
            continue
        with suppress(OSError), open(f"/proc/{name}/stat") as stat:  # noqa: PTH123 - likewise
            # Format: proc_pid_stat(5). The command's name, in brackets, may hold anything.
            fields = stat.read().rpartition(")")[2].split(maxsplit=22)
            identity = f"{boot()}:{fields[19]}"
            pid, parent, session, pages = int(name), int(fields[1]), int(fields[3]), int(fields[21])
            found[pid] = Seen(pid, parent, session, identity, fields[0] not in "ZX", pages * page)
    return found


def _from_psutil() -> Table:
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError), process.oneshot():
            session = 0
            if sys.platform != "win32":
                session = os.getsid(process.pid)
            identity = f"started:{process.create_time():.0f}"
            living = process.status() != psutil.STATUS_ZOMBIE
            memory = process.memory_info().rss
            found[process.pid] = Seen(process.pid, process.ppid(), session, identity, living, memory)
    return found


def trees(roots: Iterable[int], among: Table) -> list[Seen]:
    """Return these processes and all below them, the living ones, each once."""
    below: dict[int, list[int]] = defaultdict(list)
    for seen in among.values():
        below[seen.parent].append(seen.pid)
    found: dict[int, Seen] = {}
    left = list(roots)
    while left:
        pid = left.pop()
        if pid not in found and pid in among:
            found[pid] = among[pid]
            left += below[pid]
    return [seen for seen in found.values() if seen.living]


def of_job(root: Started, same: Callable[[Started], bool], among: Table, logs: Path | None = None) -> list[Seen]:
    """Return the living processes of the job whose supervisor is, or was, ``root``; ``same`` tells whether it is there.

    They are below the supervisor, or in its session: a session's id is not given to another process while the session
    has members. With ``logs``, the job's log folder, those count too that have left both, and still have that folder
    in their environment. Without a supervisor these are the only traces.
    """
    if root.identity and boot() and root.identity.partition(":")[0] != boot():
        return []  # started before the machine did: its numbers mean nothing now
    leader = among.get(root.pid)
    roots = set()
    # In a container, session 0 is that of all who were brought in from outside.
    if root.pid > 1 and (leader is None or same(root)):
        roots = {seen.pid for seen in among.values() if seen.session == root.pid} | {root.pid}
    if logs is not None:
        mark = f"AIRFLOW__LOGGING__BASE_LOG_FOLDER={logs}".encode()
        roots |= {pid for pid in among if pid not in roots and _marked(pid, mark)}
    return [seen for seen in trees(roots, among) if seen.pid != os.getpid()]


def _marked(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as environment:  # noqa: PTH123 - one of many
            return mark in environment.read().split(b"\0")
    except OSError:
        return False
