"""Mounts the Edge API in Airflow's API server."""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from edge_otel.settings import SECTION


def _apps() -> list[dict[str, Any]]:
    if not conf.getboolean(SECTION, "api_enabled", fallback=False):
        return []
    from edge_otel.api.lazy import LazyApp

    return [{"app": LazyApp(), "url_prefix": "/edge_worker", "name": "Edge API"}]


class EdgePlugin(AirflowPlugin):
    """The Edge API at ``/edge_worker``, when ``[edge] api_enabled`` says so."""

    name = "edge_otel"
    fastapi_apps: ClassVar[list[dict[str, Any]]] = _apps()
