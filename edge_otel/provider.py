"""What Airflow's provider discovery learns about this distribution."""

from __future__ import annotations

from typing import Any

from edge_otel.settings import SECTION, documented_options


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata. Source: ``airflow/provider_info.schema.json``."""
    return {
        "package-name": "edge-otel",
        "name": "edge-otel",
        "description": "Run tasks on machines outside the central network, and watch their whole life.",
        "executors": ["edge_otel.executor.EdgeExecutor"],
        "plugins": [{"name": "edge_otel", "plugin-class": "edge_otel.plugin.EdgePlugin"}],
        "db-managers": ["edge_otel.models.database.EdgeDBManager"],
        "cli": ["edge_otel.cli.get_cli_commands"],
        "config": {
            SECTION: {
                "description": "The EdgeExecutor, the Edge API and `airflow edge worker`.",
                "options": documented_options(),
            }
        },
    }
