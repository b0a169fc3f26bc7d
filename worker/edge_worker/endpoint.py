"""A loopback HTTP endpoint in the daemon's event loop: connections and bytes are bounded, whoever calls."""

from __future__ import annotations

import asyncio
import logging
import socket
import time

import h11

from edge_worker.conversation import HEAD_MAX, Application, Conversation

log = logging.getLogger(__name__)

HOST = "127.0.0.1"

HELD_MAX = 32 * 1024 * 1024
"""Bytes of all bodies that are being received."""

CONNECTIONS = 256
"""Open at once; a new one beyond them takes the place of the one that has been idle for longest, or is slow."""

SLOW = 2.0
"""Seconds after which a request that has not come whole gives way."""


class Endpoint:
    """Serves one application at one listener."""

    def __init__(self, listener: socket.socket, application: Application) -> None:
        self._listener = listener
        self._application = application
        self._held = 0
        self._idle: dict[asyncio.StreamWriter, None] = {}
        self._busy: dict[asyncio.StreamWriter, float] = {}
        """Since when, on the monotonic clock."""
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.url = f"http://{HOST}:{listener.getsockname()[1]}"

    async def start(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(
            self._serve, sock=self._listener, limit=HEAD_MAX, backlog=4 * CONNECTIONS
        )

    def close(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS:
            victim = self._least()
            if victim is None:
                writer.transport.abort()
                return
            self._retire(victim)
        self._open.add(writer)
        try:
            await Conversation(self._application, self, reader, writer).run()
        except (OSError, TimeoutError, h11.ProtocolError):
            pass  # the caller has gone, is too slow, or does not speak HTTP
        except Exception:
            log.exception("a request at %s has failed", self.url)
        finally:
            self._retire(writer)

    def rest(self, writer: asyncio.StreamWriter, idle: bool) -> None:
        """Note that a connection waits for a request, or no longer."""
        if idle:
            self._busy.pop(writer, None)
            self._idle[writer] = None
        else:
            self._idle.pop(writer, None)
            self._busy[writer] = time.monotonic()

    def _least(self) -> asyncio.StreamWriter | None:
        """Return the connection that can be spared best; None where all are at work."""
        if self._idle:
            return next(iter(self._idle))
        slowest = next(iter(self._busy), None)
        return slowest if slowest is not None and self._busy[slowest] + SLOW < time.monotonic() else None

    def _retire(self, writer: asyncio.StreamWriter) -> None:
        self._idle.pop(writer, None)
        self._busy.pop(writer, None)
        self._open.discard(writer)
        writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    def hold(self, size: int) -> bool:
        """Account for ``size`` bytes of a body (negative: given back); return whether they may be kept."""
        if size > 0 and self._held + size > HELD_MAX:
            return False
        self._held += size
        return True
