"""New settings for a daemon that runs: what can change does, all at once, and the rest is told."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from edge_worker import daemonlog
from edge_worker.faults import BadSetting
from edge_worker.notify import Notifier
from edge_worker.settings import Settings
from edge_worker.station import Station

log = logging.getLogger(__name__)

AT_ONCE = frozenset(
    {
        *("queues", "concurrency", "execution_api_url", "task_env_file", "zygote_idle", "drain_timeout", "kill_grace"),
        *("disconnect_policy", "job_memory", "job_processes", "job_nice"),
        *("heartbeat_interval", "poll_interval", "log_interval", "log_rate", "telemetry_interval"),
        *("heartbeat_sampling", "disk_warning", "disk_error", "memory_warning", "memory_error"),
        *("automatic_maintenance_on", "automatic_maintenance_exit", "log_level"),
    }
)
"""Settings that are heeded while the daemon runs; all others need a restart."""


@dataclass(frozen=True)
class Reloaded:
    """What a reload has done, as names of options."""

    changed: list[str]
    waiting: list[str]
    """Changed since the start, and heeded by the next one."""


class Token(Protocol):
    """What a reload needs of the token."""

    def refresh(self) -> bool:
        """Read the file; return whether it holds a new one."""


class Launcher(Protocol):
    """What a reload needs of what starts jobs."""

    def renew(self, env: Mapping[str, str], idle: float) -> None:
        """Start jobs with this environment from now on."""


class Reload:
    """Reads all sources of settings again."""

    def __init__(
        self,
        station: Station,
        sources: Callable[[], Settings],
        environment: Callable[[Settings], dict[str, str]],
        token: Token,
        launcher: Launcher,
        notifier: Notifier,
    ) -> None:
        """``sources`` and ``environment`` (of tasks) raise BadSetting."""
        self._station = station
        self._sources = sources
        self._environment = environment
        self._token = token
        self._launcher = launcher
        self._notifier = notifier
        self.asked = asyncio.Event()
        """The environment of tasks is to be looked at, too."""

    def __call__(self) -> Reloaded:
        """Heed what can be heeded. Raises BadSetting, and then nothing has changed."""
        self._notifier.say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            return self._perform()
        finally:
            self._notifier.say("READY=1")

    def _perform(self) -> Reloaded:
        station = self._station
        found = self._sources()
        env = self._environment(found)
        changed, waiting = differing(station.settings, found)
        held = station.settings.model_copy(update={name: getattr(found, name) for name in changed})
        renewed = env != station.task_env
        station.renew(held, env)
        daemonlog.set_level(held.log_level)
        self._launcher.renew(env, held.zygote_idle)
        told = Reloaded([option(name) for name in changed], [option(name) for name in waiting])
        if renewed and option("task_env_file") not in told.changed:
            told.changed.append("what --task-env-file holds")
        if self._token.refresh():
            told.changed.append("the token")
        log.info("settings were read again; changed: %s", ", ".join(told.changed) or "nothing")
        if told.waiting:
            log.warning("settings that need a restart: %s; until then they are as before", ", ".join(told.waiting))
        self.asked.set()
        return told

    def on_signal(self) -> None:
        """Do the same where nobody waits for an answer."""
        try:
            self()
        except BadSetting as problem:
            log.error("settings are as before, for the new ones are not usable: %s", problem)  # noqa: TRY400


def differing(held: Settings, found: Settings) -> tuple[list[str], list[str]]:
    """Return the names of the settings that are to change at once, and of those that need a restart."""
    names = [name for name in Settings.model_fields if getattr(held, name) != getattr(found, name)]
    return [name for name in names if name in AT_ONCE], [name for name in names if name not in AT_ONCE]


def option(name: str) -> str:
    """Return a setting's name as on the command line."""
    return "--" + name.replace("_", "-")
