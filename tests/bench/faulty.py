"""An OTLP/HTTP receiver that can be told to misbehave."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from demo.process import free_port

SLOW = 5.0
"""Seconds until a slow collector answers."""
BEHAVIOURS = ("healthy", "dead", "black hole", "slow", "errors")


class FaultyCollector:
    """Listens on one loopback port, or does not, for as long as it lives."""

    def __init__(self) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.taken = 0
        """Bytes."""
        self._behaviour = "dead"
        self._changed = threading.Event()
        self._server: ThreadingHTTPServer | None = None

    def behave(self, behaviour: str) -> None:
        """Be one of BEHAVIOURS from now on; who waits for an answer loses the connection."""
        self._changed.set()
        self._stop()
        self._changed = threading.Event()
        self._behaviour = behaviour
        if behaviour != "dead":
            self._start()

    def _start(self) -> None:
        collector, changed, behaviour = self, self._changed, self._behaviour

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if behaviour == "black hole":
                    changed.wait()
                elif behaviour == "slow":
                    changed.wait(SLOW)
                if behaviour == "black hole" or changed.is_set():
                    self.close_connection = True
                    return
                collector.taken += len(body) if behaviour != "errors" else 0
                self.send_response(500 if behaviour == "errors" else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing: senders hang up when they have waited enough."""

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, name="collector", daemon=True).start()

    def _stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
