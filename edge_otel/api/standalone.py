"""The Edge API as a server of its own: the same paths as inside Airflow's API server, and nothing else of it."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Mount

from edge_otel.api.app import create_configured_app


def create_standalone_app() -> Starlette:
    """Return the application that ``airflow edge api`` serves."""
    edge = create_configured_app()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        _end_with_supervisor()
        # What is mounted has no lifespan of its own.
        async with edge.router.lifespan_context(edge):
            yield

    return Starlette(routes=[Mount("/edge_worker", edge)], lifespan=lifespan)


def _end_with_supervisor() -> None:
    """Stop in order when the process that started this one is gone: nobody else would stop it, or free the port."""
    supervisor = multiprocessing.parent_process()
    if supervisor is None:
        return
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.remove_reader(supervisor.sentinel)
        signal.raise_signal(signal.SIGTERM)

    loop.add_reader(supervisor.sentinel, stop)
