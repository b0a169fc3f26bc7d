"""A collector at the far end of the wire, which answers as it is told and remembers what it got."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """One answer."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Got:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    """Unpacked."""
    connection: object


def taken(_: Got) -> Answer:
    """Take everything."""
    return Answer()


class FarCollector:
    """An HTTP server on a loopback port."""

    def __init__(self, port: int = 0) -> None:
        self.got: list[Got] = []
        self.answer: Callable[[Got], Answer] = taken
        """Called for each request, in a thread of its own: it may wait."""
        self.waiting = 0
        self._held = threading.Event()
        self._held.set()
        self._lock = threading.Lock()
        far = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["Content-Encoding"] == "gzip"
                headers = {name.lower(): value for name, value in self.headers.items()}
                got = Got(self.path, headers, gzip.decompress(body), self.client_address)
                far.got.append(got)
                answer = far._answer(got)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Whoever asked has gone."""

        self._server = Server(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def _answer(self, got: Got) -> Answer:
        with self._lock:
            self.waiting += 1
        self._held.wait(60)
        with self._lock:
            self.waiting -= 1
        return self.answer(got)

    def hold(self) -> None:
        """Answer nobody until ``release``."""
        self._held.clear()

    def release(self) -> None:
        """Answer all."""
        self._held.set()

    def stop(self) -> None:
        """Be gone: nobody listens any more."""
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
