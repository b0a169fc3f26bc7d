"""Job processes as the system shows them: who they are, when they end, and signals to all of a job."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from edge_worker import kin
from edge_worker.journal import Started

log = logging.getLogger(__name__)

POLL = 0.5
"""Seconds between looks where the system can not tell of a process's end."""

HELD_WITHIN = 120.0
"""Seconds to stop all processes of a job. Few are needed but on a machine that they leave no time: who is stopped forks
no more, and the others come to the system's bound of processes, so that it ends if it is not given up too early."""

GONE_WITHIN = 5.0
"""Seconds for killed processes to vanish; those that the kernel does not let die are left to it."""

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
STOP = getattr(signal, "SIGSTOP", KILL)


def identity(pid: int) -> str:
    """Return what tells a process from a later one with its pid; empty where there is no such process. Raises OSError
    where there is no open file to look with.

    On Linux: the boot's id and the start in ticks since boot (field 22 of proc_pid_stat(5)), which no change of the
    clock touches. Elsewhere the start time. ``task_run`` computes the same for itself.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return f"{kin.boot()}:{stat.rpartition(')')[2].split()[19]}"
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
    except IndexError:
        pass
    try:
        return f"started:{psutil.Process(pid).create_time():.0f}"
    except psutil.Error:
        return ""


def alive(process: Started) -> bool:
    """Return whether the process still runs; a zombie does not."""
    if not same(process):
        return False
    try:
        return psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def same(process: Started) -> bool:
    """Return whether the process is there, dead or alive."""
    # Where /proc does not exist the process could not compute its identity; its start is all there is.
    found = identity(process.pid)
    if not process.identity:
        return found.startswith("started:") and abs(float(found[8:]) - process.time) < 60
    return found == process.identity


def rebooted_since(process: Started) -> bool:
    """Return whether the machine was restarted since the process began, where the system can tell."""
    boot = process.identity.partition(":")[0]
    return bool(kin.boot()) and boot not in ("", "started", kin.boot())


async def ended(process: Started) -> int | None:
    """Wait until the process has ended; return its wait status as an exit code where it was our child."""
    try:
        descriptor = _descriptor(process.pid)
    except ProcessLookupError:
        return None
    gone = asyncio.Event()
    if descriptor is not None:
        loop = asyncio.get_running_loop()
        try:
            # Only after opening it is certain which process the descriptor stands for.
            if not same(process):
                return None
            loop.add_reader(descriptor, gone.set)
            await gone.wait()
        except OSError:
            log.debug("process %d is looked at: there is no open file to be told by", process.pid)
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
    while not gone.is_set() and may_live(process):
        await asyncio.sleep(POLL)
    return _reap(process.pid)


def may_live(process: Started) -> bool:
    """Return whether the process still runs, also where that cannot be told for want of open files."""
    try:
        return alive(process)
    except OSError:
        return True


def _reap(pid: int) -> int | None:
    if sys.platform == "win32":
        return None
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except OSError:
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


def kill(process: Started, logs: Path | None = None, spare: bool = False) -> int:
    """Kill all processes of a job, also after its supervisor has died; return how many there were. Blocking.

    They are stopped first, until there are no new ones: a process that forks without end would outrun a killer.
    ``logs`` is the job's log folder, see ``kin.of_job``. With ``spare`` the supervisor is left to tell of the end.
    """
    held: dict[int, kin.Seen] = {}
    until = time.monotonic() + HELD_WITHIN
    while fresh := [seen for seen in _members(process, logs, spare) if seen.pid not in held]:
        for seen in fresh:
            held[seen.pid] = seen
            send(seen, STOP)
        if time.monotonic() > until:
            break
    for seen in held.values():
        send(seen, KILL)
    until = time.monotonic() + GONE_WITHIN
    while _members(process, logs, spare) and held and time.monotonic() < until:
        time.sleep(0.01)
    return len(held)


def _members(process: Started, logs: Path | None, spare: bool) -> list[kin.Seen]:
    members = kin.of_job(process, same, kin.table(), logs)
    return [seen for seen in members if not (spare and seen.pid == process.pid)]


def send(seen: kin.Seen, number: int) -> None:
    """Send a signal to this process, and not to a later one with its pid."""
    with suppress(ProcessLookupError, PermissionError):
        descriptor = _descriptor(seen.pid)
        try:
            if identity(seen.pid) != seen.identity:
                pass
            elif descriptor is None or sys.platform != "linux":
                os.kill(seen.pid, number)
            else:
                # Whatever happens meanwhile, the descriptor stands for the process that was looked at.
                signal.pidfd_send_signal(descriptor, number)
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _descriptor(pid: int) -> int | None:
    """Return a descriptor of the process, None where the system has none to give. Raises ProcessLookupError."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:
        return None


async def stop(process: Started, grace: float, logs: Path) -> None:
    """End a job: SIGTERM, then SIGKILL after ``grace`` seconds for what is left; return when its process is gone.

    Where that is dead already, what it has left is killed at once: nobody would pass SIGTERM on.
    """
    if alive(process):
        terminate(process)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await ended(process)
    await asyncio.to_thread(kill, process, logs)
    await ended(process)
