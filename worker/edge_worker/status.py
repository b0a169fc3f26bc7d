"""All that the daemon tells of itself to those on its machine."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from edge_otel import __version__
from edge_otel.state import observe
from edge_worker.jobs import Job
from edge_worker.liveness import Standing, overdue, unready
from edge_worker.station import Station

WRITTEN_WITHIN = 2.0
"""Seconds for a small file in the state folder."""

T = TypeVar("T")


def stuck(station: Station) -> list[str]:
    """Return in words which loops do not turn any more."""
    return overdue({name: turn.doing for name, turn in station.turns.items()}, time.monotonic())


def obstacles(station: Station, unwritable: str | None) -> list[str]:
    """Return in words why no jobs are taken now; ``unwritable`` as of ``trouble_writing``."""
    return unready(
        Standing(
            registered=station.registered.is_set(),
            contact_age=_age(station),
            interval=station.pace().heartbeat_interval,
            leaving=station.reason if station.departure is not None else None,
            maintenance=station.maintenance.comment if station.maintenance else None,
            unwritable=unwritable,
        )
    )


def status(station: Station, unwritable: str | None) -> dict[str, Any]:
    """Return what ``edge-worker status`` shows. Ages are in seconds, times in seconds since the epoch."""
    now = time.monotonic()
    live, ready = stuck(station), obstacles(station, unwritable)
    health, maintenance = station.watch.health, station.maintenance
    return {
        "name": station.settings.name,
        "version": __version__,
        "versions": station.watch.versions,
        "pid": os.getpid(),
        "session": station.session,
        "started": station.started,
        "server": station.settings.server,
        "state": str(observe(station.facts).value),
        "live": {"ok": not live, "reasons": live},
        "ready": {"ok": not ready, "reasons": ready},
        "registered": station.registered.is_set(),
        "transport": station.transport,
        "transport_since": station.transport_since,
        "last_contact": station.last_contact,
        "contact_age": _age(station),
        "disconnect_policy": station.settings.disconnect_policy,
        "clock_skew": station.clock_skew,
        "draining": station.departure is not None,
        "leaving": station.reason if station.departure is not None else None,
        "maintenance": vars(maintenance) if maintenance else None,
        "health": {"level": health.level, "reason": health.reason},
        "queues": station.queues,
        "concurrency": station.concurrency,
        "free": station.free,
        "jobs": [_job(job) for job in station.jobs.values()],
        "log_backlog": station.log_backlog,
        "outbox": {
            "size": station.outbox.size,
            "dropped": {f"{signal} {reason}": count for (signal, reason), count in station.outbox.dropped.items()},
            "errors": station.outbox.errors,
        },
        "loops": {
            name: {"doing": turn.doing.what, "age": round(now - turn.doing.since, 3), "within": turn.doing.within}
            for name, turn in station.turns.items()
        },
    }


def _job(job: Job) -> dict[str, Any]:
    ticket, process = job.ticket, job.process
    return {
        "id": ticket.id,
        "claim": ticket.claim,
        "dag_id": ticket.dag_id,
        "task_id": ticket.task_id,
        "run_id": ticket.run_id,
        "map_index": ticket.map_index,
        "try_number": ticket.try_number,
        "queue": ticket.queue,
        "slots": ticket.slots,
        "running": job.running,
        "since": ticket.confirmed_at or None,
        "pid": process.pid if process else None,
        "log_backlog": job.backlog,
    }


def _age(station: Station) -> float | None:
    return None if station.heard_at is None else round(time.monotonic() - station.heard_at, 3)


async def trouble_writing(station: Station) -> str | None:
    """Return what is wrong with the state folder; None where it can be written."""
    try:
        await ask_disk(station, _write, station.settings.state_dir / ".writable")
    except OSError as error:
        return error.strerror or str(error)
    return None


async def ask_disk(station: Station, call: Callable[..., T], *arguments: object) -> T:
    """Return what a call gives that looks into the state folder. Raises OSError, also where the disk does not
    answer."""
    try:
        async with asyncio.timeout(WRITTEN_WITHIN):
            return await asyncio.get_running_loop().run_in_executor(station.disk, call, *arguments)
    except TimeoutError:
        raise OSError(f"its disk does not answer within {WRITTEN_WITHIN:.0f} s") from None


def _write(path: Path) -> None:
    try:
        path.write_bytes(b"1")
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
