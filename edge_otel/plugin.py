"""Mounts the Edge API in Airflow's API server."""

from __future__ import annotations

from typing import Any

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from edge_otel.settings import SECTION


class _Apps:
    """The applications to mount, made when they are asked for: every process of Airflow loads plugins, and only an API
    server needs FastAPI and the routes."""

    def __get__(self, plugin: object, owner: type) -> list[dict[str, Any]]:
        if not conf.getboolean(SECTION, "api_enabled", fallback=False):
            return []
        from edge_otel.api.app import create_configured_app

        return [{"app": create_configured_app(), "url_prefix": "/edge_worker", "name": "Edge API"}]


class EdgePlugin(AirflowPlugin):
    """The Edge API at ``/edge_worker``, when ``[edge] api_enabled`` says so."""

    name = "edge_otel"
    fastapi_apps = _Apps()
