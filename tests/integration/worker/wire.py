"""Stands between a worker and its API servers, and does to the requests that carry log bytes what a test says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any

Deal = Callable[["Wire", "Append"], bytes | None]
"""What becomes of a request with log bytes: the answer for the worker, or None to close the connection without one."""


@dataclass(frozen=True)
class Append:
    """One request with bytes of a log."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def first(self) -> int:
        """Offset of the first byte."""
        return int(self.headers["content-range"].removeprefix("bytes ").partition("-")[0])


class Wire:
    """A reverse proxy on a loopback port; all that is no log goes to the first of its servers as it is."""

    def __init__(self, *servers: int) -> None:
        self.servers = servers
        """Ports of the loopback interface."""
        self.deal: Deal = Wire.forward
        self.appends: list[Append] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._closing = False
        self._threads[0].start()

    def forward(self, append: Append, server: int = 0) -> bytes | None:
        """Pass a request on to one of the servers and return its answer, or None if it gave none."""
        return _ask(self.servers[server], "PATCH", append.path, append.headers, append.body)

    def cut(self, append: Append) -> None:
        """Pass on half of a request, and close the connection."""
        lines = [f"PATCH {append.path} HTTP/1.1", *(f"{name}: {value}" for name, value in append.headers.items())]
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.servers[0]), timeout=20) as server:
            server.sendall("\r\n".join([*lines, "", ""]).encode() + append.body[: len(append.body) // 2])

    def close(self) -> None:
        """End it, and every connection."""
        self._closing = True
        for connection in list(self._open):
            _shut(connection)
        with suppress(OSError):
            socket.create_connection(self._listener.getsockname()).close()
        self._listener.close()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._closing:
                client.close()
                return
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        self._open.add(client)
        # Either end may go at any time, as at every proxy.
        with suppress(OSError, HTTPException), client, client.makefile("rb") as reader:
            while self._carry(client, reader):
                pass
        self._open.discard(client)

    def _carry(self, client: socket.socket, reader: Any) -> bool:
        """Carry one request; return whether another may follow on this connection."""
        head = []
        while (line := reader.readline()) != b"\r\n":
            if not line:
                return False
            head.append(line)
        method, path, _ = head[0].decode().split()
        pairs = (line.decode("latin-1").strip().partition(": ") for line in head[1:])
        headers = {name.lower(): value for name, _, value in pairs}
        if "upgrade" in headers:
            self._tunnel(client, b"".join([*head, b"\r\n"]))
            return False
        body = reader.read(int(headers.get("content-length", 0)))
        if method == "PATCH" and path.endswith("/log"):
            append = Append(path, headers, body)
            self.appends.append(append)
            answer = self.deal(self, append)
        else:
            answer = _ask(self.servers[0], method, path, headers, body)
        if answer is None:
            return False
        client.sendall(answer)
        return True

    def _tunnel(self, client: socket.socket, head: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self.servers[0]), timeout=20) as server:
            server.settimeout(None)
            self._open.add(server)
            server.sendall(head)
            back = threading.Thread(target=_pump, args=(server, client))
            back.start()
            _pump(client, server)
            back.join()
            self._open.discard(server)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    _shut(source)
    _shut(target)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _ask(port: int, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes | None:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body or None, headers)
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
    kept = [f"{n}: {v}" for n, v in answer.getheaders() if n.lower() not in ("connection", "transfer-encoding")]
    if "content-length" not in (name.lower() for name, _ in answer.getheaders()):
        kept.append(f"Content-Length: {len(content)}")
    return "\r\n".join([f"HTTP/1.1 {answer.status} {answer.reason}", *kept, "", ""]).encode() + content
