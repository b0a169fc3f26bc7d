"""Job processes as the system shows them: who they are, when they end, and signals to all of a job."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil

from edge_worker.journal import Started

log = logging.getLogger(__name__)

POLL = 0.5
"""Seconds between looks where the system can not tell of a process's end."""


def identity(pid: int) -> str:
    """Return what tells a process from a later one with its pid; empty where there is no such process.

    On Linux: the boot's id and the start in ticks since boot (field 22 of proc_pid_stat(5)), which no change of the
    clock touches. Elsewhere the start time. ``task_run`` computes the same for itself.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{stat.rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        pass
    try:
        return f"started:{psutil.Process(pid).create_time():.0f}"
    except psutil.Error:
        return ""


def alive(process: Started) -> bool:
    """Return whether the process still runs; a zombie does not."""
    if not _same(process):
        return False
    try:
        return psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _same(process: Started) -> bool:
    # Where /proc does not exist the process could not compute its identity; its start is all there is.
    found = identity(process.pid)
    if not process.identity:
        return found.startswith("started:") and abs(float(found[8:]) - process.time) < 60
    return found == process.identity


async def ended(process: Started) -> int | None:
    """Wait until the process has ended; return its wait status as an exit code where it was our child."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    except (AttributeError, OSError):
        while alive(process):
            await asyncio.sleep(POLL)
        return _reap(process.pid)
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    try:
        # Only after opening it is certain which process the descriptor stands for.
        if not _same(process):
            return None
        loop.add_reader(descriptor, gone.set)
        await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return _reap(process.pid)


def _reap(pid: int) -> int | None:
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except (ChildProcessError, AttributeError, OSError):
        return None
    return os.waitstatus_to_exitcode(status) if found == pid else None


def unreaped(process: Started | None) -> bool:
    """Return whether a process is there, dead or alive."""
    return process is not None and bool(process.identity) and identity(process.pid) == process.identity


def terminate(process: Started) -> None:
    """Ask a job to stop: SIGTERM to its supervisor's group, which forwards it to the task."""
    if not alive(process):
        return
    with suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGTERM)
        else:
            psutil.Process(process.pid).terminate()


def kill(process: Started) -> int:
    """Kill all processes of a job's session, also after its supervisor has died; return how many there were.

    A session's id is not given to another process while the session has members.
    """
    leader = identity(process.pid)
    if leader and not _same(process):
        return 0
    if process.identity.partition(":")[0] != identity(os.getpid()).partition(":")[0]:
        return 0  # started before the machine did: its numbers mean nothing now
    killed = 0
    for pid in _session(process.pid):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            killed += 1
    return killed


async def stop(process: Started, grace: float) -> None:
    """End a job: SIGTERM, then SIGKILL after ``grace`` seconds for what is left; return when its process is gone."""
    if not alive(process):
        return
    terminate(process)
    with suppress(TimeoutError):
        async with asyncio.timeout(grace):
            await ended(process)
    kill(process)
    await ended(process)


def _session(leader: int) -> list[int]:
    if not hasattr(os, "getsid"):
        return [leader]
    members = []
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == leader and pid != os.getpid():
                members.append(pid)
    return members
