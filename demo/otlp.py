"""A real OTLP receiver, the rotel collector, and behind it a store that keeps what it forwards."""

from __future__ import annotations

import gzip
import importlib.util
import os
import subprocess
import sysconfig
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests

from demo.process import Process, free_port
from demo.spans import Span, decode
from demo.telemetry import Point, Record, decode_logs, decode_metrics
from demo.wait import wait_for


class Store:
    """An OTLP/HTTP endpoint on a loopback port that remembers all that it gets."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._points: list[Point] = []
        self._records: list[Record] = []
        keep = {
            "/v1/traces": lambda body: self._spans.extend(decode(body)),
            "/v1/metrics": lambda body: self._points.extend(decode_metrics(body)),
            "/v1/logs": lambda body: self._records.extend(decode_logs(body)),
        }

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self._chunks() if self.headers.get("Transfer-Encoding") == "chunked" else self._counted()
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path in keep:
                    keep[self.path](body)
                self.send_response(200 if self.path in keep else 404)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def _counted(self) -> bytes:
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))

            def _chunks(self) -> bytes:
                body = b""
                while length := int(self.rfile.readline().split(b";")[0], 16):
                    body += self.rfile.read(length)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="otlp-store", daemon=True)
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def spans(self) -> list[Span]:
        """Return all spans received so far."""
        return list(self._spans)

    def points(self) -> list[Point]:
        """Return all readings of metrics received so far."""
        return list(self._points)

    def records(self) -> list[Record]:
        """Return all log records received so far."""
        return list(self._records)

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def find_rotel() -> Path | None:
    """Return the path of the rotel program, when its package is installed."""
    spec = importlib.util.find_spec("rotel")
    if spec is None or not spec.submodule_search_locations:
        return None
    program = Path(spec.submodule_search_locations[0]) / "rotel-agent"
    return program if program.exists() else None


def _environment() -> dict[str, str]:
    # The program is linked with libpython, which is not in the loader's path when Python was built by hand.
    library = sysconfig.get_config_var("LIBDIR") or ""
    path = os.pathsep.join(filter(None, [library, os.environ.get("LD_LIBRARY_PATH", "")]))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ROTEL_", "OTEL_"))}
    return {**kept, "LD_LIBRARY_PATH": path}


def why_rotel_cannot_run() -> str | None:
    """Return the reason why rotel does not start on this machine; None when it does."""
    program = find_rotel()
    if program is None:
        return "the package rotel is not installed"
    try:
        tried = subprocess.run(
            [program, "--version"], env=_environment(), capture_output=True, text=True, timeout=30, check=False
        )
    except OSError as error:
        return f"rotel does not start: {error}"
    return None if tried.returncode == 0 else f"rotel does not start: {tried.stderr.strip()}"


class Rotel:
    """The rotel collector: receives OTLP on a loopback port and forwards it to a store."""

    def __init__(self, store: Store, logs: Path) -> None:
        program = find_rotel()
        if program is None:
            raise FileNotFoundError("the package rotel is not installed")
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        options = {
            "ROTEL_OTLP_HTTP_ENDPOINT": f"127.0.0.1:{port}",
            "ROTEL_OTLP_GRPC_ENDPOINT": f"127.0.0.1:{free_port()}",
            "ROTEL_EXPORTER": "otlp",
            "ROTEL_OTLP_EXPORTER_ENDPOINT": store.endpoint,
            "ROTEL_OTLP_EXPORTER_PROTOCOL": "http",
            "ROTEL_OTLP_EXPORTER_COMPRESSION": "none",
            "ROTEL_PID_FILE": str(logs / "rotel.pid"),
            "ROTEL_LOG_FILE": str(logs / "rotel-agent.log"),
        }
        env = {**_environment(), **options}
        self.process = Process("rotel", [program, "start"], log=logs / "rotel.log", env=env)
        try:
            wait_for(self._answers, "rotel to answer", timeout=30)
        except BaseException:
            self.stop()
            raise

    def _answers(self) -> bool:
        self.process.check()
        try:
            requests.post(f"{self.endpoint}/v1/traces", data=b"", timeout=5)
        except requests.RequestException:
            return False
        return True

    def stop(self) -> None:
        """End it; what it holds is forwarded first."""
        self.process.stop()
