"""A process that we start, own and end: in a session of its own, its output in a file."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

GRACE = 20.0
"""Seconds between the polite signal and SIGKILL."""


class Ended(Exception):
    """A process ended that should have lived; the text holds the end of its log."""


class Process:
    """One started program. ``stop`` and ``kill`` reach its whole process group."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log = log
        self._stop_signal = stop_signal
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env) if env is not None else None,
                cwd=cwd,
                start_new_session=True,
                **as_user(user),
            )

    @property
    def pid(self) -> int:
        """Process id, which is its process group's id too."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """As of ``waitpid``; None while it runs."""
        return self._popen.poll()

    def check(self) -> None:
        """Do nothing while it runs.

        :raises Ended: when it has ended
        """
        if self.exit_code is not None:
            raise Ended(f"{self.name} ended with code {self.exit_code}; the end of {self.log}:\n{tail(self.log)}")

    def wait(self, timeout: float) -> int:
        """Return the exit code, at most ``timeout`` seconds from now."""
        return self._popen.wait(timeout)

    def terminate(self) -> None:
        """Ask the process, and not its children, to stop."""
        if self.exit_code is None:
            self._popen.send_signal(self._stop_signal)

    def stop(self, grace: float = GRACE) -> None:
        """Ask it to stop, wait, and kill whatever of its group is left."""
        self.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(grace)
        self.kill()

    def kill(self) -> None:
        """Kill its whole process group at once, as a crash would."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait(GRACE)

    def kill_alone(self) -> None:
        """Kill this process at once and leave its children running."""
        self._popen.kill()
        self._popen.wait(GRACE)


def as_user(user: str | None) -> dict[str, Any]:
    """Return the arguments that make ``subprocess`` start a program as this user, or as ourselves."""
    return {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def tail(log: Path, lines: int = 30) -> str:
    """Return the last lines of a log, indented."""
    if not log.exists():
        return "    (no output)"
    text = log.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join(f"    {line}" for line in text) or "    (no output)"


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def with_environment(name: str, value: str) -> list[psutil.Process]:
    """Return the living processes that were started with this environment variable, wherever they moved since."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
