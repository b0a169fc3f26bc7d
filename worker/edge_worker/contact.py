"""When the server last answered: remembered over restarts of the daemon, and read by the supervisors of its jobs.

The clock goes on while the machine sleeps, and no change of the time of day touches it.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

from edge_otel.wire import STOPPED_AFTER
from edge_worker import kin
from edge_worker.disconnect import Policy, Pressure, press

log = logging.getLogger(__name__)

NAME = "contact"
WRITTEN_EVERY = 15.0
"""Seconds between writes at most: what is written may be so much too old."""
SUPERVISORS_LATER = 20.0
"""Seconds after the policy's end at which a supervisor stops its task by itself: the daemon comes first."""


def clock() -> float:
    """Return seconds since the machine was started."""
    if sys.platform != "win32" and hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Contact:
    """The last contact. Times are of ``clock``."""

    def __init__(self, folder: Path, policy: Policy, now: float) -> None:
        self.policy = self._wanted = self._telling = policy
        self.path = folder / NAME
        self._last = self._sent = now
        self._written = 0.0
        if policy.stop_after is None:
            self.path.unlink(missing_ok=True)
        elif (remembered := self._read()) is not None:
            self._last = min(now, remembered)

    @property
    def facts(self) -> dict[str, float]:
        """What the server is told of the policy."""
        after = self._wanted.stopped_after
        return {} if after is None else {STOPPED_AFTER: after}

    def sending(self, now: float) -> None:
        """Note that a heartbeat is sent."""
        self._sent, self._telling = now, self._wanted

    def answered(self) -> None:
        """Note that the server has answered it; it may have heard of it as early as it was sent."""
        self._last = self._sent
        if self.policy != self._telling == self._wanted:
            self._follow(self._wanted)
        limit = self.policy.stopped_after
        if limit is not None and self._sent - self._written >= min(WRITTEN_EVERY, limit / 10):
            self._write(limit)

    def heed(self, policy: Policy) -> None:
        """Take over another policy: one that stops jobs sooner at once; another when the server, which counts on the
        promise that it has, was told."""
        self._wanted = policy
        before, after = self.policy.stopped_after, policy.stopped_after
        if after is not None and (before is None or after <= before):
            self._follow(policy)

    def _follow(self, policy: Policy) -> None:
        self.policy = policy
        if (limit := policy.stopped_after) is not None:
            self._write(limit)
            return
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            log.error("running tasks still have the former policy should the daemon go: %s", error)  # noqa: TRY400

    @property
    def record(self) -> str:
        """What supervisors are to know, though it may not be possible to write it; empty where tasks are kept."""
        limit = self.policy.stopped_after
        return "" if limit is None else _record(self._last, limit)

    def _write(self, limit: float) -> None:
        try:
            # In place and of one length: that needs no room on a full disk.
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, _record(self._last, limit).encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            log.error("cannot remember the last contact with the server: %s", error)  # noqa: TRY400
        else:
            self._written = self._last

    def silence(self, now: float) -> float:
        """Return the seconds without an answer."""
        return max(0.0, now - self._last)

    def lost(self, now: float) -> bool:
        """Return whether a job would be stopped at once."""
        return press(self.policy, self.silence(now)) is not Pressure.NONE

    def _read(self) -> float | None:
        try:
            boot, last, _ = self.path.read_text().split()
            # After a restart of the machine no job runs, and its clock has begun anew.
            return float(last) if boot == (kin.boot() or "-") else None
        except (OSError, ValueError):
            return None


def _record(last: float, limit: float) -> str:
    return f"{kin.boot() or '-'} {last:015.3f} {limit + SUPERVISORS_LATER:015.3f}\n"
