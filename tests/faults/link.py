"""Stands between a site and its API server, and ends the TLS: what may go wrong above the network happens here."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

HEAD_MAX = 64 * 1024
PIECE = 16 * 1024


@dataclass(frozen=True)
class Answer:
    """What is answered instead of the server: bytes, after ``after`` seconds."""

    content: bytes
    after: float = 0.0


def http(status: str, body: bytes = b"", *, after: float = 0.0, headers: str = "") -> Answer:
    """Return an answer of HTTP, such as ``503 Service Unavailable``."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    return Answer(head.encode() + body, after)


class Links:
    """The event loop of all links, in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="links")
        self._thread.start()

    def call(self, work: Any) -> Any:
        """Return what a coroutine returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def close(self) -> None:
        """End it."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Link:
    """One site's way to the server. Its attributes may be set at any time, and hold for what comes then."""

    def __init__(self, links: Links, listener: socket.socket, server: int, certificate: Callable[[bool], str]) -> None:
        """``certificate`` returns the file with key and certificate: an expired one if so asked."""
        self._links = links
        self._server = server
        self._certificate = certificate
        self.port = listener.getsockname()[1]
        self.delay = 0.0
        """Seconds that each piece takes on its way, in each direction."""
        self.answer: Answer | None = None
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(certificate(False))
        self._open: set[asyncio.Task[None]] = set()
        self._serving = links.call(self._serve(listener))

    def present(self, expired: bool) -> None:
        """Show this certificate from now on."""
        self._tls.load_cert_chain(self._certificate(expired))
        self.cut()

    def cut(self) -> None:
        """Close every connection."""
        self._links.call(self._cut())

    def close(self) -> None:
        """End it."""
        self._serving.close()
        self.cut()

    async def _cut(self) -> None:
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, listener: socket.socket) -> asyncio.Server:
        def heed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._carry(reader, writer))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

        return await asyncio.start_server(heed, sock=listener, ssl=self._tls, limit=HEAD_MAX)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind: asyncio.StreamWriter | None = None
        pumps: list[asyncio.Task[None]] = []
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if (answer := self.answer) is not None:
                await asyncio.sleep(answer.after)
                writer.write(answer.content)
                await writer.drain()
                return
            back, behind = await asyncio.open_connection("127.0.0.1", self._server)
            await asyncio.sleep(self.delay)
            behind.write(head)
            pumps = [asyncio.ensure_future(self._pump(*ends)) for ends in ((reader, behind), (back, writer))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ssl.SSLError):
            pass
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in (writer, behind):
                if end is not None:
                    with suppress(Exception):
                        end.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(PIECE):
            if self.delay:
                await asyncio.sleep(self.delay)
            target.write(data)
            await target.drain()
