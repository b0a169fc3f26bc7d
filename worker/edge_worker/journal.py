"""The state folder: what must outlive the daemon. One folder per job and claim, and the maintenance memory."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any
from uuid import UUID

from pydantic import Field

from edge_worker.faults import BadSetting
from edge_worker.lasting import keep_names, read, try_lock, write

log = logging.getLogger(__name__)

UNMEASURED = -1
"""Length of a log whose job may still write to it."""


@dataclass(frozen=True)
class Ticket:
    """What is needed to report a job, without its workload."""

    id: str
    claim: int
    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int
    slots: int
    queue: str
    log_path: str | None = None
    """Of the log, below the job's log folder; None for workloads that write none."""
    parent: dict[str, str] = field(default_factory=dict)
    """W3C context of the task, as offered."""
    span: dict[str, str] = field(default_factory=dict)
    """W3C context of the daemon's own span around the job."""
    confirmed_at: float = 0.0
    """Seconds since the epoch; 0 until the server has confirmed the acceptance."""
    oom_kills: int | None = None
    """How often the kernel had killed for want of memory by then."""


@dataclass(frozen=True)
class Started:
    """A job's process, written by itself before it does anything else."""

    pid: Annotated[int, Field(strict=True, gt=1, lt=2**31)]
    """To the system, numbers below stand for many processes."""
    identity: str
    """Tells this process from a later one with its pid; see ``processes.identity``."""
    time: float


@dataclass(frozen=True)
class Result:
    """How the process ended, written by its wrapper or by whoever saw it die."""

    exit_code: int | None
    error: str | None
    time: float
    task_state: str | None = None
    """Of the task instance as Airflow's supervisor left it; None for other workloads and where it could not tell."""
    cpu_time: float | None = None
    """Seconds of all of the job's processes that were waited for."""
    memory_peak: int | None = None
    """Bytes: the resident memory of the largest of them."""


@dataclass(frozen=True)
class Verdict:
    """The job's end as it is reported, and what its span needs beside that."""

    succeeded: bool
    exit_code: int | None
    error: str | None
    log_length: int
    log_sha256: str | None
    ended_at: float
    reported: bool = False
    log_shipped: bool = False
    outcome: str = ""
    """As of ``names.JOB_OUTCOME``; empty in what an older daemon wrote."""
    error_type: str | None = None
    cpu_time: float | None = None
    memory_peak: int | None = None
    recorded: bool = False
    """Its spans are on disk, or on their way."""


@dataclass(frozen=True)
class Maintenance:
    """Why the worker takes no jobs; origin is ``admin`` (central), ``local`` or ``automatic``."""

    comment: str
    origin: str
    since: float = 0.0
    """Seconds since the epoch; 0 where an older daemon has not written it."""


class JobFolder:
    """One job's folder. Reading raises ValueError where a file is corrupt; a missing one is None."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, ticket: Ticket, workload: str) -> None:
        """Create the folder with its workload (which holds a token) and ticket, so that it lasts; raises OSError."""
        self.path.mkdir(mode=0o700)
        # Should a power cut take it, the job cannot be started, and says so.
        write(self.path / "workload.json", workload)
        self.save(ticket, lasting=True)
        keep_names(self.path.parent)

    def save(self, record: Ticket | Verdict, lasting: bool = False) -> None:
        """Write a record in one step, see ``write``; raises OSError."""
        name = "offer.json" if isinstance(record, Ticket) else "report.json"
        write(self.path / name, json.dumps(asdict(record)), lasting)

    def conclude(self, result: Result) -> None:
        """Write how the process ended, in its place; raises OSError."""
        write(self.path / "result.json", json.dumps(asdict(result)))

    def order(self, order: dict[str, Any]) -> None:
        """Write what the launched process must know besides its workload."""
        write(self.path / "launch.json", json.dumps(order))

    def ticket(self) -> Ticket:
        """Return the job's ticket; raises ValueError where it is missing."""
        ticket = read(self.path / "offer.json", Ticket)
        if ticket is None:
            raise ValueError("offer.json is missing")
        UUID(ticket.id)
        return ticket

    def started(self) -> Started | None:
        """Return the process that has claimed this folder."""
        return read(self.path / "process.json", Started)

    def result(self) -> Result | None:
        """Return how the process ended."""
        return read(self.path / "result.json", Result)

    def verdict(self) -> Verdict | None:
        """Return the end as reported, or to be reported."""
        return read(self.path / "report.json", Verdict)

    def wants_token(self) -> bool:
        """Return whether the task's supervisor asks for a new token."""
        return os.access(self.path / "token.wanted", os.F_OK)  # unlike Path.exists, it never raises

    def give_token(self, token: str) -> None:
        """Hand a new token over to the task's supervisor, which removes it; raises OSError."""
        write(self.path / "token", token)
        (self.path / "token.wanted").unlink(missing_ok=True)

    @property
    def logs(self) -> Path:
        """The task's ``[logging] base_log_folder``."""
        return self.path / "logs"

    @property
    def memory(self) -> Path:
        """What is known of the log file."""
        return self.path / "log.json"

    def log_file(self, ticket: Ticket) -> Path | None:
        """Return the job's log file, or None where it writes none or would write it elsewhere."""
        if not ticket.log_path or "\0" in ticket.log_path:
            return None
        # Not resolved through links: only the text from the network is judged here.
        path = Path(os.path.normpath(self.logs / ticket.log_path))
        return path if path.is_relative_to(self.logs) and path != self.logs else None

    def restore(self) -> bool:
        """Make the folder anew where it was removed, though a log may have been begun there since; return whether it
        was."""
        if os.access(self.path / "offer.json", os.F_OK):
            return False
        try:
            for folder in (self.path.parent.parent, self.path.parent, self.path):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError:
            return False
        return True

    def remove(self) -> bool:
        """Remove all of it; return whether it was there and is gone."""
        found = os.access(self.path, os.F_OK)
        shutil.rmtree(self.path, ignore_errors=True)
        return found and not os.access(self.path, os.F_OK)


class Journal:
    """The state folder, locked by one daemon at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None
        self.left: set[Path] = set()
        """Folders of jobs of which all is delivered, that could not be removed, or found."""

    def lock(self) -> None:
        """Create the folder and take its lock; raises BadSetting where another daemon has it."""
        try:
            for folder in self._folders:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = (self.path / "lock").open("a+")
        except OSError as error:
            raise BadSetting(f"--state-dir: cannot use {self.path}: {error.strerror}") from None
        if not try_lock(handle):
            handle.seek(0)
            owner = handle.read(20).strip() or "unknown"
            handle.close()
            raise BadSetting(
                f"--state-dir: another edge-worker (pid {owner}) uses {self.path}; stop it, or give each its own folder"
            )
        # Who holds it is only for people: on a full disk it is not said.
        with suppress(OSError):
            os.ftruncate(handle.fileno(), 0)
            os.write(handle.fileno(), f"{os.getpid()}\n".encode())
        self._lock = handle

    @property
    def _folders(self) -> tuple[Path, ...]:
        return self.path, self.path / "jobs", self.path / "broken"

    def mend(self) -> bool:
        """Make anew what was removed from under a daemon that runs; return whether there was anything. Blocking.

        Raises OSError, and BadSetting where another daemon has taken the folder meanwhile.
        """
        lost = [folder for folder in self._folders if not folder.is_dir()]
        for folder in lost:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._holds_lock():
            return bool(lost)
        self.unlock()
        self.lock()
        return True

    def _holds_lock(self) -> bool:
        """Return whether the lock that is held is the one that others find."""
        try:
            return self._lock is not None and os.path.samestat(
                os.fstat(self._lock.fileno()), (self.path / "lock").stat()
            )
        except FileNotFoundError:
            return False

    def unlock(self) -> None:
        """Let the next daemon have the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def folder(self, job_id: str, claim: int) -> JobFolder:
        """Return the folder of one claim of a job, which may not exist yet."""
        return JobFolder(self.path / "jobs" / f"{job_id}-{claim}")

    def forget(self, folder: JobFolder) -> None:
        """Remove the folder of a job that is done with, now or later: the next daemon would report it again."""
        if not folder.remove():
            self.left.add(folder.path)

    def sweep(self) -> None:
        """Remove what was left, where that is possible now. Blocking."""
        for path in list(self.left):
            if JobFolder(path).remove() or not os.access(path, os.F_OK):
                self.left.discard(path)

    def jobs(self) -> Iterator[JobFolder]:
        """Yield the folders of earlier daemons."""
        for path in sorted((self.path / "jobs").iterdir()):
            yield JobFolder(path)

    def set_aside(self, folder: JobFolder, reason: Exception) -> None:
        """Move a folder that can not be understood out of the way, for people to look at."""
        target = self.path / "broken" / f"{folder.path.name}.{os.getpid()}"
        log.error("%s is not readable (%s); moved to %s", folder.path.name, reason, target)
        if folder.path.is_dir():
            # Whatever it is, it must not keep a token.
            for secret in ("workload.json", "token"):
                (folder.path / secret).unlink(missing_ok=True)
        folder.path.rename(target)

    def maintenance(self) -> Maintenance | None:
        """Return the maintenance that was on when the last daemon ended."""
        try:
            return read(self.path / "maintenance.json", Maintenance)
        except (ValueError, OSError):
            log.exception("maintenance.json is not readable; going on in maintenance")
            return Maintenance("maintenance.json was not readable", "local")

    def remember(self, maintenance: Maintenance | None) -> None:
        """Keep the maintenance over restarts; None ends it."""
        path = self.path / "maintenance.json"
        if maintenance is None:
            path.unlink(missing_ok=True)
        else:
            write(path, json.dumps(asdict(maintenance)))
