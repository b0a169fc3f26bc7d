"""The Edge API behind a real socket, as workers reach it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import requests
import uvicorn
from fastapi import FastAPI

from demo.process import free_port
from demo.wait import wait_for
from edge_otel.api.log_files import Writer
from edge_otel.models import tokens
from edge_otel.models.session import new_session
from edge_otel.settings import LogFolder

FACTS = {"airflow_version": "3.3.2", "edge_provider_version": "0.1.0", "concurrency": 4}


class Api:
    """One running server."""

    logs: Path

    def __init__(self, app: FastAPI, *, port: int | None = None, channels: bool = False) -> None:
        """``channels``: with what the API does between requests, and WebSockets."""
        self.app = app
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        # No logging configuration of its own: the tests read what is logged.
        config = uvicorn.Config(
            app,
            host="127.0.0.1",
            port=self.port,
            log_config=None,
            lifespan="on" if channels else "off",
            ws="auto" if channels else "none",
            # A connection that the server closes while the next test's request is under way fails that test.
            timeout_keep_alive=3600,
        )
        self._server = uvicorn.Server(config)
        self._thread = Thread(target=self._server.run, name="edge-api", daemon=True)
        self._thread.start()
        wait_for(lambda: self._server.started, "the server to listen", timeout=20, pause=0.01)
        self._http = requests.Session()
        self._http.trust_env = False

    def write_logs_to(self, folder: Path) -> None:
        """Let finished logs go below this folder."""
        self.logs = folder
        self.app.state.log_writer = Writer(LogFolder(folder, 0o755, 0o644))

    def call(self, method: str, path: str, token: str | None = None, **kwargs: Any) -> requests.Response:
        """Send one request with this token."""
        headers = kwargs.pop("headers", {})
        if token is not None:
            headers = {"Authorization": f"Bearer {token}"} | headers
        return self._http.request(method, self.url + path, headers=headers, timeout=30, **kwargs)

    def stop(self) -> None:
        """End the server."""
        self._http.close()
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()


def new_token(worker: str = "w", **scope: Any) -> str:
    """Return the text of a new token."""
    values: dict[str, Any] = {"queues": None, "team": None, "lifetime": timedelta(days=1), "now": datetime.now(UTC)}
    with new_session() as session:
        return tokens.create(session, worker=worker, by=None, **values | scope)[1]


def registration(state: str = "starting", **fields: Any) -> dict[str, Any]:
    """Return the body of a registration or heartbeat of our worker."""
    return {"state": state, "sysinfo": FACTS, "session": "s1", **fields}


def wish(**fields: Any) -> dict[str, Any]:
    """Return the body of our worker's question for a job."""
    return {"free_concurrency": 4, "supports_task_instance_uuid": True, "claims": True, "session": "s1", **fields}


def coordinates(job: dict[str, Any]) -> str:
    """Return the part of the path that names a job that was fetched."""
    return f"{job['dag_id']}/{job['task_id']}/{job['run_id']}/{job['try_number']}/{job['map_index']}"


StartApi = Callable[..., Api]
