"""What Airflow's provider discovery learns about this distribution."""

from __future__ import annotations

from typing import Any

from edge_otel.settings import SECTION, documented_options

_WRAPPED = ("s3", "gs", "wasb", "oss")
REMOTE_LOG_SCHEMES = ("edge", *(f"edge+{scheme}" for scheme in _WRAPPED))
"""Of ``[logging] remote_base_log_folder``, for an Airflow that finds remote logs by their providers."""


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
        "remote-logging": [
            {"classpath": "edge_otel.remote_log.EdgeRemoteLog", "scheme": scheme} for scheme in REMOTE_LOG_SCHEMES
        ],
        "config": {
            SECTION: {
                "description": "The EdgeExecutor, the Edge API and `airflow edge worker`.",
                "options": documented_options(),
            }
        },
    }
