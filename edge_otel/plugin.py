"""Mounts the Edge API in Airflow's API server."""

from __future__ import annotations

from typing import Any

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from edge_otel.page_files import edition
from edge_otel.settings import SECTION

_MOUNT = "/edge_worker"


def _enabled() -> bool:
    return bool(conf.getboolean(SECTION, "api_enabled", fallback=False))


def _file(name: str) -> str:
    return f"edge_worker/ui/static/{edition()}/{name}"


class _Apps:
    """The applications to mount, made when they are asked for: every process of Airflow loads plugins, and only an API
    server needs FastAPI and the routes."""

    def __get__(self, plugin: object, owner: type) -> list[dict[str, Any]]:
        if not _enabled():
            return []
        from edge_otel.api.app import create_configured_app

        return [{"app": create_configured_app(ui=True), "url_prefix": _MOUNT, "name": "Edge API"}]


class EdgePlugin(AirflowPlugin):
    """The Edge API at ``/edge_worker`` and the fleet page in Airflow's menu, when ``[edge] api_enabled`` says so.

    URLs are relative to Airflow's own base, which may have a path.
    """

    name = "edge_otel"
    fastapi_apps = _Apps()
    react_apps = (
        [
            {
                "name": "Edge workers",
                "bundle_url": _file("page.js"),
                "destination": "nav",
                "category": "admin",
                "url_route": "edge",
                "icon": _file("icon.svg"),
                "icon_dark_mode": _file("icon-dark.svg"),
            }
        ]
        if _enabled()
        else []
    )
