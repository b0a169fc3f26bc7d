"""The Edge API, made at its first request."""

from __future__ import annotations

import asyncio
from threading import Lock
from typing import Any


class LazyApp:
    """ASGI application that loads FastAPI and the routes when it is first called.

    Airflow loads plugins in every process, and only an API server calls them.
    """

    def __init__(self) -> None:
        self._app: Any = None
        self._sweep: asyncio.Task[None] | None = None
        """Ends with the server's event loop, which cancels what runs in it."""
        self._lock = Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._app is None:
            with self._lock:
                if self._app is None:
                    from edge_otel.api.app import create_configured_app

                    app = create_configured_app()
                    self._sweep = asyncio.get_running_loop().create_task(app.state.sweep.run(), name="edge-log-sweep")
                    self._app = app
        await self._app(scope, receive, send)
