"""The environment of task processes: the daemon's own without its secrets, the user's file, and what a site needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge_worker.faults import BadSetting
from edge_worker.settings import ENV_PREFIX

EXECUTION_API_URL = "AIRFLOW__CORE__EXECUTION_API_SERVER_URL"

PATIENCE = {
    # Airflow's client makes this many attempts with random pauses of 1 s up to the maximum: about 7 minutes, twice
    # for a task's final state. While a call is repeated the task's log is not read, hence not longer pauses.
    "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "40",
    "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "20",
    # Each failed heartbeat is one such row of attempts. The default of 3 would end a task in an outage of half an hour.
    "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "20",
}


def read_file(path: Path) -> dict[str, str]:
    """Return the KEY=VALUE lines of an environment file; blank lines and lines with ``#`` first are skipped.

    A value may be in single or double quotes, which are removed; nothing in it is expanded. Raises BadSetting.
    """
    found: dict[str, str] = {}
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"--task-env-file: cannot read {path}: {error}") from None
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        key, equals, value = text.removeprefix("export ").partition("=")
        key, value = key.strip(), value.strip()
        if not equals or not key or any(c.isspace() for c in key):
            # The line itself may hold a secret.
            raise BadSetting(f"--task-env-file: line {number} of {path} is not KEY=VALUE")
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        found[key] = value
    return found


def for_tasks(mine: Mapping[str, str], users: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that all task processes share.

    Stronger first: the user's file, the daemon's environment, what makes tasks survive a remote site.
    """
    env = {key: value for key, value in mine.items() if not key.upper().startswith(ENV_PREFIX)}
    env.update(users)
    for key, value in PATIENCE.items():
        env.setdefault(key, value)
    if env.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        env.setdefault("AIRFLOW__TRACES__OTEL_ON", "True")
        # Airflow's default is gRPC, and it ignores OTEL_EXPORTER_OTLP_PROTOCOL for traces.
        env.setdefault("OTEL_TRACES_EXPORTER", "otlp_proto_http")
        # force_flush does not keep its own timeout: a dead collector costs a task this much, in seconds.
        env.setdefault("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    return env


def for_job(shared: Mapping[str, str], logs: Path, execution_api_url: str) -> dict[str, str]:
    """Return what one job's environment has beside the shared one."""
    env = {"AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(logs)}
    if EXECUTION_API_URL not in shared:
        env[EXECUTION_API_URL] = execution_api_url
    return env
