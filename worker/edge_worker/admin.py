"""Local administration over a Unix socket in the state folder: one JSON line each way."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edge_otel import __version__
from edge_otel.state import observe
from edge_worker.faults import BadSetting
from edge_worker.journal import Maintenance
from edge_worker.station import Station

NAME = "admin.sock"
LINE_MAX = 64 * 1024
"""Bytes of a request or an answer."""

ANSWER_WITHIN = 10.0
"""Seconds."""

_PATH_MAX = 100
"""Bytes; sockaddr_un has room for 107 on Linux, 103 elsewhere."""


@contextmanager
def _address(state_dir: Path) -> Iterator[str]:
    """Yield the socket's address; a path that is too long is shortened by way of an open folder."""
    path = str(state_dir / NAME)
    if len(os.fsencode(path)) <= _PATH_MAX or not Path("/proc/self/fd").is_dir():
        yield path
        return
    folder = os.open(state_dir, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{folder}/{NAME}"
    finally:
        os.close(folder)


async def serve(station: Station, state_dir: Path) -> asyncio.Server | None:
    """Listen for the administrator on this machine; None where there are no Unix sockets. Raises OSError."""
    if not hasattr(socket, "AF_UNIX") or os.name == "nt":
        return None
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _address(state_dir) as address:
        # The folder's lock is ours, so a socket that is here was left behind.
        with suppress(FileNotFoundError):
            Path(address).unlink()
        mask = os.umask(0o177)
        try:
            listener.bind(address)
        finally:
            os.umask(mask)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                request = json.loads(await reader.readline())
                writer.write(json.dumps(perform(station, request)).encode() + b"\n")
                await writer.drain()
        except (ValueError, OSError, TimeoutError):
            pass
        finally:
            writer.close()

    return await asyncio.start_unix_server(answer, sock=listener, limit=LINE_MAX)


def perform(station: Station, request: Any) -> dict[str, Any]:
    """Do what an administrator asks for; return the status after it, or an error."""
    match request:
        case {"do": "status"}:
            pass
        case {"do": "maintenance", "on": True, "comment": str(comment)}:
            station.maintain(Maintenance(comment[:1024], "local"))
            station.news.set()
        case {"do": "maintenance", "on": False}:
            station.maintain(None)
        case {"do": "drain"}:
            station.drain("asked to on this machine", "local")
        case {"do": "stop"}:
            station.drain("stopped on this machine", "local", at_once=True)
        case _:
            return {"error": "this daemon does not know the request; is it older than the command?"}
    return status(station)


def status(station: Station) -> dict[str, Any]:
    """Return what ``edge-worker status`` shows."""
    maintenance = station.maintenance
    return {
        "name": station.settings.name,
        "version": __version__,
        "pid": os.getpid(),
        "server": station.settings.server,
        "state": str(observe(station.facts).value),
        "registered": station.registered.is_set(),
        "transport": station.transport,
        "transport_since": station.transport_since,
        "last_contact": station.last_contact,
        "draining": station.departure is not None,
        "maintenance": {"comment": maintenance.comment, "origin": maintenance.origin} if maintenance else None,
        "queues": station.queues,
        "concurrency": station.concurrency,
        "free": station.free,
        "jobs": [
            {
                "id": job.ticket.id,
                "claim": job.ticket.claim,
                "dag_id": job.ticket.dag_id,
                "task_id": job.ticket.task_id,
                "run_id": job.ticket.run_id,
                "running": job.running,
            }
            for job in station.jobs.values()
        ],
    }


def ask(state_dir: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Return the running daemon's answer; raises BadSetting where there is none."""
    with _address(state_dir) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_WITHIN)
        try:
            connection.connect(address)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as stream:
                answer: dict[str, Any] = json.loads(stream.readline(LINE_MAX * 16))
        except (OSError, ValueError) as error:
            raise BadSetting(f"no edge-worker answers in {state_dir} ({error}); is --state-dir right?") from None
    if "error" in answer:
        raise BadSetting(answer["error"])
    return answer
