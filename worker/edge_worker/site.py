"""What all jobs of a daemon share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_otel.wire import JobReport
from edge_worker.journal import JobFolder, Ticket
from edge_worker.launch import Launcher
from edge_worker.meters import Meters
from edge_worker.settings import Settings
from edge_worker.shipping import Shipping
from edge_worker.spans import Spans


class JobTransport(Protocol):
    """What a job needs of the wire."""

    async def report(self, ticket: Ticket, state: str, report: JobReport) -> None:
        """Tell the job's state. Raises Fault."""


@dataclass(frozen=True)
class Site:
    """What all jobs share."""

    worker: str
    transport: JobTransport
    launcher: Launcher
    spans: Spans
    meters: Meters
    shipping: Shipping
    execution_api_url: Callable[[], str]
    executors: Callable[[], str | None]
    """Airflow's, as the server has told them."""
    contact: Path
    """Where the last contact with the server is written down."""
    renews: Callable[[], bool]
    """Whether the server gives running tasks new tokens."""
    task_env: Callable[[], dict[str, str]]
    settings: Callable[[], Settings]
    forget: Callable[[JobFolder], None]
    """Called when nothing of a job is left to do."""
    changed: Callable[[], None]
    """Called when the job's slot, or its need to be reported, has changed."""
