"""Job folders that cannot be understood, as after a power cut: what they still tell is kept, the job is reported."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from edge_otel.telemetry import context
from edge_worker import processes
from edge_worker.journal import JobFolder, Journal, Result, Started, Ticket

log = logging.getLogger(__name__)

T = TypeVar("T")

RECORDS = ("offer.json", "process.json", "result.json", "report.json", "launch.json", "workload.json")


def salvage(journal: Journal, folder: JobFolder, problem: Exception) -> bool:
    """Make the folder one that can be adopted: its job is watched while its process runs, else reported as failed.

    What cannot be read is set aside for people. Return False where not even the folder's name tells the job: then all
    of it is set aside. Raises OSError.
    """
    ticket = _read(folder.ticket) or _of_name(folder.path.name)
    if ticket is None or not any((folder.path / name).exists() for name in RECORDS[:5]):
        # Or its offer was never written down whole, and so never accepted: the server offers it again.
        journal.set_aside(folder, problem)
        return False
    started, result, verdict = _read(folder.started), _read(folder.result), _read(folder.verdict)
    target = _put_aside(journal, folder, {"process": started, "result": result, "report": verdict})
    log.error("job %s: its records are not readable (%s); they were moved to %s", ticket.id, problem, target)
    if not ticket.log_path:
        ticket = _with_log(folder, ticket)
    folder.save(ticket)
    if verdict is None and result is None and (started is None or not processes.alive(started)):
        killed = _end(folder, started)
        text = f"Its records at the site were not readable; they were moved to {target}."
        if killed:
            text += " Its process was killed."
        folder.conclude(Result(None, text, time.time()))
    return True


def _read(look: Callable[[], T | None]) -> T | None:
    try:
        return look()
    except (ValueError, OSError):
        return None


def _of_name(name: str) -> Ticket | None:
    """Return a ticket with what is needed to report the job, from its folder's name."""
    job_id, _, claim = name.rpartition("-")
    try:
        id_, number = str(UUID(job_id)), int(claim)
    except ValueError:
        return None
    unknown, span, now = "unknown", context.child_of({}), time.time()
    return Ticket(id_, number, unknown, unknown, unknown, -1, 0, 1, unknown, span=span, confirmed_at=now)


def _with_log(folder: JobFolder, ticket: Ticket) -> Ticket:
    """Return the ticket with the path of the job's log, where the launch was written down."""
    try:
        path = Path(json.loads((folder.path / "launch.json").read_bytes())["log_file"]).relative_to(folder.logs)
    except (OSError, ValueError, KeyError, TypeError):
        return ticket
    return Ticket(**{**vars(ticket), "log_path": str(path)})


def _put_aside(journal: Journal, folder: JobFolder, read: dict[str, object]) -> Path:
    """Copy the folder's records, without those that hold a token, and remove what cannot be read."""
    target = journal.path / "broken" / f"{folder.path.name}.{os.getpid()}"
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in RECORDS[:-1]:
        if (folder.path / name).is_file():
            shutil.copy(folder.path / name, target)
    for name, found in read.items():
        if found is None:
            (folder.path / f"{name}.json").unlink(missing_ok=True)
    (folder.path / "offer.json").unlink(missing_ok=True)
    return target


def _end(folder: JobFolder, started: Started | None) -> int:
    """Kill what is left of the job, of which nobody knows how it does; return how many processes there were."""
    # Where the process is not known its environment still tells whose it is.
    return processes.kill(started or Started(-1, "", 0.0), folder.logs)
