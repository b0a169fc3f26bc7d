"""A proxy before several API servers, as a load balancer would be: each request goes to the next of them."""

from __future__ import annotations

import itertools
import socket
from contextlib import suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

_PER_CONNECTION = ("connection", "transfer-encoding", "content-length")


class RoundRobin:
    """Listens on a loopback port; a WebSocket stays with the server that it was opened to."""

    def __init__(self, *ports: int) -> None:
        order = itertools.cycle(ports)

        class Handler(_Handler):
            def next_port(self) -> int:
                return next(order)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, name="round-robin")
        self._thread.start()

    def close(self) -> None:
        """Take no more connections."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def next_port(self) -> int:
        raise NotImplementedError

    def log_message(self, *args: object) -> None:
        """Say nothing of single requests."""

    def _pass_on(self) -> None:
        # Either end may go at any time, as at every proxy.
        with suppress(OSError):
            self._tunnel() if "Upgrade" in self.headers else self._ask()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on  # noqa: N815 - the server's names

    def _ask(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server = HTTPConnection("127.0.0.1", self.next_port(), timeout=60)
        try:
            server.request(self.command, self.path, body or None, dict(self.headers))
            answer = server.getresponse()
            content = answer.read()
        finally:
            server.close()
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in _PER_CONNECTION:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _tunnel(self) -> None:
        self.close_connection = True
        head = f"{self.requestline}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        with socket.create_connection(("127.0.0.1", self.next_port())) as server:
            server.sendall(f"{head}\r\n".encode())
            back = Thread(target=_pump, args=(server, self.connection), daemon=True)
            back.start()
            _pump(self.connection, server)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
