"""What a task leaves behind: processes that come to this one when their parents have died, and their end.

The task interpreter runs this too, by way of ``task_run``: standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

_PR_SET_CHILD_SUBREAPER = 36

SETTLE = 0.25
"""Seconds in which what is left may end by itself, unsaid: helpers do that when they see their task gone."""

KILLED_WITHIN = 5.0
"""Seconds after SIGKILL until a process that the kernel does not let die is given up."""

LOOKS = 1000
"""At children that are dead whenever they are looked at, until they are taken for all."""


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


class _Seen(NamedTuple):
    parent: int
    living: bool
    start: str
    """In ticks since boot: what tells a process from a later one with its pid."""


def _look(pid: int) -> _Seen | None:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - ten times as fast
            # Format: proc_pid_stat(5). The command's name, in brackets, may hold anything.
            fields = stat.read().rpartition(")")[2].split(maxsplit=20)
    except OSError:
        return None
    return _Seen(int(fields[1]), fields[0] not in "ZX", fields[19])


def _all() -> Iterable[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - likewise


def _candidates() -> Iterable[int]:
    """Return the pids among which this process's children are: all, where the kernel does not list them."""
    found: list[int] = []
    try:
        for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - likewise
            with open(f"/proc/self/task/{thread}/children") as listed:  # noqa: PTH123 - likewise
                found += map(int, listed.read().split())
    except OSError:
        return _all()
    return found


def _nobody(pid: int) -> bool:
    return False


def children(spared: Callable[[int], bool] = _nobody) -> dict[int, str]:
    """Return this process's children that live and are not ``spared``, and their starts; empty without /proc."""
    if sys.platform != "linux":
        return {}
    me = os.getpid()
    dead: set[int] = set()
    for _ in range(LOOKS):
        seen = {pid: _look(pid) for pid in _candidates() if pid not in dead and not spared(pid)}
        mine = {pid: found for pid, found in seen.items() if found and found.parent == me}
        living = {pid: found.start for pid, found in mine.items() if found.living}
        if living or not mine:
            return living
        # Who has died since the list was made may have left a child to this process, which is not in it.
        dead |= mine.keys()
    return {}


def kill(spared: Callable[[int], bool], within: float) -> list[int]:
    """Kill all children but ``spared`` ones, and all below them; return their pids.

    They are stopped first, until there are no new ones or ``within`` seconds have passed: a process that forks without
    end would outrun a killer.
    """
    if sys.platform == "win32":
        return []
    held: dict[int, str] = {}
    until = time.monotonic() + within
    while time.monotonic() < until:
        top = children(spared)
        fresh = top.items() - held.items()
        for pid, start in fresh:
            _send(pid, start, signal.SIGSTOP)
        # Only now: such a look takes longer than some processes live.
        below = _below(top).items() - held.items() if top else set()
        for pid, start in below:
            _send(pid, start, signal.SIGSTOP)
        held.update(fresh | below)
        if not fresh and not below:
            break
    for pid, start in held.items():
        _send(pid, start, signal.SIGKILL)
    return list(held)


def _below(top: Iterable[int]) -> dict[int, str]:
    """Return the living processes below these, and their starts."""
    by_parent: dict[int, dict[int, str]] = defaultdict(dict)
    for pid in _all():
        if (found := _look(pid)) and found.living:
            by_parent[found.parent][pid] = found.start
    below: dict[int, str] = {}
    left = list(top)
    while left:
        fresh = {pid: start for pid, start in by_parent[left.pop()].items() if pid not in below}
        below |= fresh
        left += fresh
    return below


def _send(pid: int, start: str, number: int) -> None:
    """Send a signal to this process, and not to a later one with its pid."""
    if sys.platform != "linux":
        return
    descriptor: int | None = None
    # Somebody else's, such as of sudo, is left alone.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        try:
            with contextlib.suppress(OSError):
                descriptor = os.pidfd_open(pid)
            found = _look(pid)
            if found is None or found.start != start:
                pass
            elif descriptor is None:
                os.kill(pid, number)
            else:
                signal.pidfd_send_signal(descriptor, number)
        finally:
            if descriptor is not None:
                os.close(descriptor)


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
    names: dict[int, str] = {}
    # A signal that is blocked waits to be taken, so that no end is missed between a look and the wait.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    spared = _in_own_group if others else _nobody
    until = time.monotonic() + SETTLE
    while _left(spared) and (rest := until - time.monotonic()) > 0:
        _await_child(rest)
    until += grace
    while (left := _left(spared)) and (rest := until - time.monotonic()) > 0:
        for pid in left.keys() - names.keys():
            names[pid] = _name(pid)
            _send(pid, left[pid], signal.SIGTERM)
        _await_child(rest)
    until += KILLED_WITHIN
    while _left(spared) and (rest := until - time.monotonic()) > 0:
        for pid in kill(spared, rest):
            names.setdefault(pid, _name(pid))
        _await_child(rest)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return list(names.values())


def _in_own_group(pid: int) -> bool:
    if sys.platform == "win32":
        return False
    try:
        return os.getpgid(pid) == os.getpgrp()
    except ProcessLookupError:
        return True


def _left(spared: Callable[[int], bool]) -> dict[int, str]:
    """Return the children that live and are not spared, and their starts."""
    if sys.platform == "win32":
        return {}
    reap(but=-1 if spared is _in_own_group else 0)
    try:
        # Nearly always there is no child, and this costs less than a look at processes.
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return {}
    return children(spared)


def _await_child(seconds: float) -> None:
    if sys.platform == "linux":
        signal.sigtimedwait({signal.SIGCHLD}, seconds)
    else:
        time.sleep(min(seconds, 0.05))


def _name(pid: int) -> str:
    name = "?"
    with contextlib.suppress(OSError):
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    return f"{name} (pid {pid})"
