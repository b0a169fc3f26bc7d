"""What a task leaves behind: processes that come to this one when their parents have died, and their end.

The task interpreter runs this too, by way of ``task_run``: standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36

SETTLE = 0.25
"""Seconds in which what is left may end by itself, unsaid: helpers do that when they see their task gone."""

KILLED_WITHIN = 5.0
"""Seconds after SIGKILL until a process that the kernel does not let die is given up."""


def adopt_orphans() -> bool:
    """Have descendants whose parents die come to this process instead of init; return whether the system does so.

    Linux, prctl(2). It is not passed on to children.
    """
    if sys.platform != "linux":
        return False
    try:
        import ctypes

        return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0) == 0)
    except (ImportError, OSError, AttributeError):
        return False


def children() -> list[int]:
    """Return this process's children that live; empty without /proc."""
    found = []
    mine = str(os.getpid())
    for name in os.listdir("/proc") if sys.platform == "linux" else ():  # noqa: PTH208 - ten times as fast
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as stat:  # noqa: PTH123 - likewise
                # Format: proc_pid_stat(5). The command's name, in brackets, may hold anything.
                state, parent = stat.read().rpartition(")")[2].split(maxsplit=2)[:2]
                if parent == mine and state not in "ZX":
                    found.append(int(name))
    return found


def reap(but: int = 0) -> None:
    """Take away the dead that came to this process.

    With ``but`` those stay that somebody else waits for: that child, and what is in this process's own group.
    """
    if sys.platform == "win32":
        return
    with contextlib.suppress(ChildProcessError, ProcessLookupError):
        while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if but and (found.si_pid == but or os.getpgid(found.si_pid) == os.getpgrp()):
                return
            os.waitpid(found.si_pid, os.WNOHANG)


def end(grace: float, others: bool = False) -> list[str]:
    """End all children, and their children as they come: SIGTERM, and SIGKILL ``grace`` seconds later.

    With ``others`` those in this process's own group, which it may have started for itself, are left alone. Return
    those that were ended in words; the command's name only, for its arguments may hold secrets.
    """
    if sys.platform == "win32":
        return []
    told: dict[int, int] = {}
    names: dict[int, str] = {}
    # A signal that is blocked waits to be taken, so that no end is missed between a look and the wait.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    begun = time.monotonic()
    phases = ((SETTLE, None), (SETTLE + grace, signal.SIGTERM), (SETTLE + grace + KILLED_WITHIN, signal.SIGKILL))
    for until, number in phases:
        while left := _left(others):
            for pid in left:
                if number is not None and told.get(pid) != number:
                    told[pid] = number
                    names.setdefault(pid, f"{_name(pid)} (pid {pid})")
                    # Not waited for, hence nobody else's pid.
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
            if (rest := begun + until - time.monotonic()) <= 0:
                break
            _await_child(rest)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return list(names.values())


def _left(others: bool) -> list[int]:
    """Return the children that live; with ``others`` those outside this process's group."""
    if sys.platform == "win32":
        return []
    reap(but=-1 if others else 0)
    try:
        # Nearly always there is no child, and this costs less than a look at all processes.
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return []
    group, found = os.getpgrp(), []
    for pid in children():
        with contextlib.suppress(ProcessLookupError):
            if not others or os.getpgid(pid) != group:
                found.append(pid)
    return found


def _await_child(seconds: float) -> None:
    if sys.platform == "linux":
        signal.sigtimedwait({signal.SIGCHLD}, seconds)
    else:
        time.sleep(min(seconds, 0.05))


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"
