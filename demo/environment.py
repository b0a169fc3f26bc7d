"""The environment variables of the central site's processes, and of a remote site's, which has none of its secrets."""

from __future__ import annotations

import base64
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MARKER = "EDGE_OTEL_CLUSTER"
"""Every process of a cluster carries the cluster's id in this variable, so that none can be left over unseen."""


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


@dataclass(frozen=True)
class Secrets:
    """Made anew for every cluster."""

    jwt: str = field(default_factory=lambda: secrets.token_urlsafe(64))
    session: str = field(default_factory=secrets.token_urlsafe)
    fernet: str = field(default_factory=_fernet_key)


def bare(marker: str) -> dict[str, str]:
    """Return our own environment without what configures Airflow, the worker or OpenTelemetry."""
    ours = ("AIRFLOW", "OTEL_", "EDGE_", "ROTEL_", "PYTHONPATH", "XDG_RUNTIME_DIR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}",
        MARKER: marker,
        # Process titles must not overwrite the memory in which the marker is read.
        "SPT_NOENV": "1",
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def telemetry(endpoint: str | None) -> dict[str, str]:
    """Return what makes the central site send its telemetry to this OTLP receiver; a remote site needs none of it."""
    if endpoint is None:
        return {"AIRFLOW__TRACES__OTEL_ON": "False"}
    return {
        # Airflow's own spans.
        "AIRFLOW__TRACES__OTEL_ON": "True",
        "OTEL_TRACES_EXPORTER": "otlp_proto_http",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "5",
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        "OTEL_METRICS_EXPORTER": "none",
        # Ours, and those of the workers.
        "AIRFLOW__EDGE__OTLP_ENDPOINT": endpoint,
        "AIRFLOW__EDGE__TELEMETRY_INTERVAL": "2",
    }


def central(
    base: Mapping[str, str], *, home: Path, dags: Path, database: str, port: int, executor: str, keys: Secrets
) -> dict[str, str]:
    """Return the environment of scheduler, DAG processor, API server and command line."""
    return {
        **base,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API_AUTH__JWT_SECRET": keys.jwt,
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__SECRET_KEY": keys.session,
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__EXECUTOR": executor,
        "AIRFLOW__CORE__FERNET_KEY": keys.fernet,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        "AIRFLOW__EDGE__API_ENABLED": "True",
        "AIRFLOW__EDGE__HEARTBEAT_INTERVAL": "2",
        "AIRFLOW__EDGE__JOB_POLL_INTERVAL": "1",
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
    }


def site(base: Mapping[str, str], *, home: Path, dags: Path) -> dict[str, str]:
    """Return the environment of an edge worker: it knows its DAG folder, and neither database, keys nor collector."""
    return {
        **base,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
