"""The Edge API, made at its first request."""

from __future__ import annotations

from threading import Lock
from typing import Any


class LazyApp:
    """ASGI application that loads FastAPI and the routes when it is first called.

    Airflow loads plugins in every process, and only an API server calls them.
    """

    def __init__(self) -> None:
        self._app: Any = None
        self._lock = Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._app is None:
            with self._lock:
                if self._app is None:
                    from edge_otel.api.app import create_configured_app

                    self._app = create_configured_app()
        await self._app(scope, receive, send)
