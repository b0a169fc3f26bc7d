"""What Alertmanager's receivers get: a webhook on a loopback port that remembers it, and our routes that lead there."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml

from dashboards.alert import duration
from demo.prometheus import PROVISIONING

_PACE = {"group_wait": 10.0, "group_interval": 300.0, "repeat_interval": 3600.0}
"""Options that wait, in seconds as they are configured for what is critical."""


class Told(NamedTuple):
    """One alert in one message."""

    receiver: str
    status: str
    """firing or resolved."""
    labels: dict[str, str]
    annotations: dict[str, str]


class Receiver:
    """An HTTP server that remembers the alerts which it is sent; ``stop`` ends it."""

    def __init__(self) -> None:
        told: list[Told] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                told.extend(
                    Told(self.path.strip("/"), alert["status"], alert["labels"], alert["annotations"])
                    for alert in message["alerts"]
                )
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._told = told
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="alerts", daemon=True)
        self._thread.start()

    def told(self, **labels: str) -> list[Told]:
        """Return what came so far about alerts with these labels, in order."""
        return [one for one in self._told if labels.items() <= one.labels.items()]

    def forget(self) -> None:
        """Forget what came so far."""
        self._told.clear()

    def configuration(self, folder: Path, scale: float) -> Path:
        """Write our routes with ``scale`` times the patience, all leading here, and return the file."""
        given = yaml.safe_load((PROVISIONING / "alertmanager.yml").read_text())
        for route in (given["route"], *given["route"]["routes"]):
            route |= {option: duration(seconds * scale) for option, seconds in _PACE.items()}
        for receiver in given["receivers"]:
            for webhook in receiver["webhook_configs"]:
                path = urlsplit(webhook["url"]).path
                webhook["url"] = f"http://127.0.0.1:{self._server.server_port}{path}"
        file = folder / "alertmanager.yml"
        file.write_text(yaml.safe_dump(given))
        return file

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
