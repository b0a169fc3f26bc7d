"""Facts about the machine and the two interpreters, for the heartbeat."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil

from edge_otel import __version__
from edge_worker.faults import BadSetting

PROBE_WITHIN = 30.0
"""Seconds for an interpreter to start and tell its versions."""

_PROBE = """
import importlib.metadata as m, json, platform
try: found = m.distribution("apache-airflow-core")
except m.PackageNotFoundError: airflow = packages = None
else: airflow, packages = found.version, str(found.locate_file(""))
print(json.dumps({"airflow_version": airflow, "python_version": platform.python_version(), "packages": packages}))
"""


class TaskInterpreter:
    """The Python that runs tasks, asked for its versions in the background; Airflow is not imported."""

    def __init__(self, python: str) -> None:
        self.python = python
        self._packages: str | None = None
        try:
            self._probe = subprocess.Popen(
                [python, "-P", "-c", _PROBE], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            raise BadSetting(f"--task-python: cannot run {python}: {error.strerror}") from None

    def versions(self) -> dict[str, str]:
        """Return airflow_version and python_version; raises BadSetting where tasks could not run."""
        try:
            out, errors = self._probe.communicate(timeout=PROBE_WITHIN)
            found: dict[str, str | None] = json.loads(out)
        except subprocess.TimeoutExpired:
            self._probe.kill()
            self._probe.communicate()
            raise BadSetting(f"--task-python: {self.python} did not answer within {PROBE_WITHIN:.0f} s") from None
        except ValueError:
            last = (errors.decode(errors="replace").strip().splitlines() or ["it printed nothing"])[-1]
            raise BadSetting(f"--task-python: {self.python} is not a usable Python 3.11 or later: {last}") from None
        airflow, python = found["airflow_version"], found["python_version"]
        if airflow is None or python is None:
            raise BadSetting(
                f"--task-python: {self.python} has no Apache Airflow; give the Python of an environment that has it"
            )
        self._packages = found.get("packages")
        return {"airflow_version": airflow, "python_version": python}

    def mark(self) -> tuple[int, ...]:
        """Return what changes when packages are installed, upgraded or removed, or others take their place."""
        found: tuple[int, ...] = ()
        for path in (self.python, self._packages):
            with suppress(OSError):
                seen = Path(path or self.python).stat()
                found += (seen.st_ino, seen.st_mtime_ns)
        return found


class Host:
    """The machine, looked at anew for each report."""

    def __init__(self, state_dir: Path, versions: dict[str, str], now: datetime) -> None:
        self._state_dir = state_dir
        self.versions = versions
        """Of the interpreter that runs tasks."""
        self._fixed: dict[str, str | int | float] = {
            "edge_provider_version": __version__,
            "os": f"{platform.system()} {platform.release()} {platform.machine()}",
            "worker_start_time": now.astimezone(UTC).isoformat(),
        }
        psutil.cpu_percent()  # the first look has nothing to compare with

    def facts(self) -> dict[str, str | int | float]:
        """Return the facts; what the system does not tell is left out."""
        found = {**self.versions, **self._fixed}
        for source in (_cpu, _memory, self._disk, _load):
            # psutil raises many things on odd systems; no heartbeat is worth less than such a number.
            with suppress(Exception):
                found |= source()
        return found

    def _disk(self) -> dict[str, float]:
        return {"disk_percent": psutil.disk_usage(str(self._state_dir)).percent}


def _cpu() -> dict[str, float]:
    return {"cpu_percent": psutil.cpu_percent()}


def _memory() -> dict[str, float]:
    memory = psutil.virtual_memory()
    return {"memory_percent": memory.percent, "memory_total": memory.total}


def _load() -> dict[str, float]:
    if sys.platform == "win32":
        return {}
    one, five, _ = os.getloadavg()
    return {"load1": round(one, 3), "load5": round(five, 3)}
