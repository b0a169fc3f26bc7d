"""The worker's eye on itself: what it reports of its host, its health, and the automatic maintenance that follows."""

from __future__ import annotations

import logging

from edge_worker.facts import Fact, UserFacts
from edge_worker.health import INFO, Act, Health, Rules, Thresholds, decide, judge, read_status
from edge_worker.host import Host
from edge_worker.settings import Settings

log = logging.getLogger(__name__)

NAME = "excused"
"""File in the state folder that is there while automatic maintenance may not begin."""


class Watch:
    """Looks, and judges what it has seen. Only the event loop's thread touches it."""

    def __init__(self, settings: Settings, host: Host, users: UserFacts | None) -> None:
        self.health = Health()
        self.facts: dict[str, Fact] = {}
        """As of the last look, the user's among them."""
        self._host = host
        self._users = users
        self.heed(settings)
        self._folder = settings.state_dir
        self._excused = (self._folder / NAME).exists()

    def heed(self, settings: Settings) -> None:
        """Judge by these settings from now on."""
        self._thresholds = (
            Thresholds(settings.disk_warning, settings.disk_error),
            Thresholds(settings.memory_warning, settings.memory_error),
        )
        self.rules = Rules.named(settings.automatic_maintenance_on, settings.automatic_maintenance_exit)

    def renew(self, versions: dict[str, str]) -> None:
        """Report these versions of the interpreter that runs tasks from now on."""
        self._host.versions = versions

    def look(self, now: float, origin: str | None, unwritable: str | None = None) -> Act:
        """Look at everything and return what automatic maintenance does; ``now`` is that of the monotonic clock,
        ``origin`` that of the maintenance that is on, ``unwritable`` why the state folder cannot be written."""
        host = self._host.facts()
        users = self.users(now)
        told: tuple[int | None, str] | None = None
        if self._users is not None:
            level = None if users is None else read_status(users["status"]) if "status" in users else INFO
            told = level, str((users or {}).get("status_text") or f"{self._users.path} tells of bad health")
        before, disk, memory = self.health, host.get("disk_percent"), host.get("memory_percent")
        percents = (float(disk) if disk is not None else None, float(memory) if memory is not None else None)
        self.health = judge(before, percents, self._thresholds, str(self._folder), told, unwritable)
        if self.health.level != before.level:
            log.log(max(self.health.level, before.level), "health: %s", self.health.reason or "good again")
        self.facts = {**(users or {}), **host, "status": self.health.level}
        act, excused = decide(self.rules, self.health, origin, self._excused)
        self._remember(excused)
        return act

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the interpreter that runs tasks."""
        return self._host.versions

    def users(self, now: float) -> dict[str, Fact] | None:
        """Return what the user's function told; None while that is not known, empty without a function."""
        return self._users.latest(now) if self._users is not None else {}

    def excuse(self) -> None:
        """Heed that a person has ended a maintenance."""
        self._remember(True)

    def _remember(self, excused: bool) -> None:
        if excused == self._excused:
            return
        self._excused = excused
        try:
            (self._folder / NAME).touch() if excused else (self._folder / NAME).unlink(missing_ok=True)
        except OSError as error:
            log.error("cannot remember who ended maintenance: %s", error)  # noqa: TRY400
