"""For ``[logging] logging_config_class = edge_otel.logging_config.LOGGING_CONFIG``: Airflow's own logging, with
``remote_base_log_folder = edge://`` or ``edge+…://``. Airflow's default class refuses schemes that it does not know.

Airflow reads these names when it imports the module, so unlike others this one reads the configuration at once.
"""

from __future__ import annotations

from typing import Any

from edge_otel.remote_log import EdgeRemoteLog, inner_folder, settings_of_inner
from edge_otel.settings import LogFolder, airflow_configuration

__all__ = ["DEFAULT_REMOTE_CONN_ID", "LOGGING_CONFIG", "REMOTE_TASK_LOG"]

_conf = airflow_configuration()
_remote = (_conf.get("logging", "remote_logging", fallback="") or "").lower() in ("true", "t", "1", "yes", "on")
_folder = _conf.get("logging", "remote_base_log_folder", fallback="") or ""
_ours = _remote and _folder.startswith(("edge:", "edge+"))

with settings_of_inner(inner_folder(_folder) if _ours else _folder if _remote else None):
    from airflow.config_templates import airflow_local_settings as _airflows

LOGGING_CONFIG: dict[str, Any] = _airflows.DEFAULT_LOGGING_CONFIG
DEFAULT_REMOTE_CONN_ID: str | None = _airflows.DEFAULT_REMOTE_CONN_ID
REMOTE_TASK_LOG: Any = _airflows.REMOTE_TASK_LOG
if _ours:
    REMOTE_TASK_LOG = EdgeRemoteLog(LogFolder.read(_conf), _airflows.REMOTE_TASK_LOG)
