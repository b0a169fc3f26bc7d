"""Local administration over a Unix socket in the state folder: one JSON line each way."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_worker import status
from edge_worker.faults import BadSetting
from edge_worker.journal import Maintenance
from edge_worker.reload import Reloaded
from edge_worker.station import Station

NAME = "admin.sock"
REQUEST_MAX = 64 * 1024
"""Bytes."""

COMMENT_MAX = 1024
"""Characters."""

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


async def serve(station: Station, reload: Callable[[], Reloaded]) -> asyncio.Server | None:
    """Listen for the administrator on this machine; None where there are no Unix sockets. Raises OSError."""
    if sys.platform == "win32" or not hasattr(socket, "AF_UNIX"):
        return None
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _address(station.settings.state_dir) as address:
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
                # Without a look at the disk: a supervisor waits for this one.
                if request == {"do": "contact"}:
                    writer.write(json.dumps({"record": station.contact.record}).encode() + b"\n")
                    return
                # First: the answer to a request that ends the daemon must be on its way before it does.
                unwritable = await status.trouble_writing(station)
                answer: dict[str, Any] = perform(station, request, reload) or status.status(station, unwritable)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (ValueError, OSError, TimeoutError):
            pass
        finally:
            writer.close()

    return await asyncio.start_unix_server(answer, sock=listener, limit=REQUEST_MAX)


def perform(station: Station, request: Any, reload: Callable[[], Reloaded]) -> dict[str, Any] | None:
    """Do what an administrator asks for; return an error where that cannot be done, or what the status does not
    tell."""
    match request:
        case {"do": "status"}:
            pass
        case {"do": "maintenance", "on": True, "comment": str(comment)}:
            station.maintain(Maintenance(comment[:COMMENT_MAX], "local"))
            station.news.set()
        case {"do": "maintenance", "on": False}:
            station.maintain(None)
        case {"do": "maintenance", "comment": str(comment)}:
            if station.maintenance is None:
                return {"error": "this worker is not in maintenance; `edge-worker maintenance on` begins it"}
            station.maintain(replace(station.maintenance, comment=comment[:COMMENT_MAX]))
            station.news.set()
        case {"do": "drain"}:
            station.drain("asked to on this machine", "local")
        case {"do": "stop"}:
            station.drain("stopped on this machine", "local", at_once=True)
        case {"do": "reload"}:
            try:
                return vars(reload())
            except BadSetting as problem:
                return {"error": f"settings are as before, for the new ones are not usable: {problem}"}
        case {"do": "handover"}:
            station.hand_over("asked to on this machine")
        case _:
            return {"error": "this daemon does not know the request; is it older than the command?"}
    return None


def ask(state_dir: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Return the running daemon's answer; raises BadSetting where there is none."""
    if not hasattr(socket, "AF_UNIX"):
        raise BadSetting("this system has no Unix sockets, by which the daemon is asked")
    with _address(state_dir) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_WITHIN)
        try:
            connection.connect(address)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as stream:
                answer: dict[str, Any] = json.loads(stream.readline())
        except (OSError, ValueError) as error:
            raise BadSetting(f"no edge-worker answers in {state_dir} ({error}); is --state-dir right?") from None
    if "error" in answer:
        raise BadSetting(answer["error"])
    return answer
