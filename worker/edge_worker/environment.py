"""The environment of task processes: the daemon's own without its secrets, the user's file, and what a site needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from edge_otel.telemetry import names, variables
from edge_worker.faults import BadSetting
from edge_worker.settings import ENV_PREFIX

OTLP_PREFIX = "OTEL_EXPORTER_OTLP_"

EXPORTERS = ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER")

SERVICE = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY")
"""Variables that systemd sets for the daemon alone."""

EXECUTION_API_URL = "AIRFLOW__CORE__EXECUTION_API_SERVER_URL"
EXECUTORS = "AIRFLOW__CORE__EXECUTOR"

PATIENCE = {
    # What a task asks for is repeated for as long as nothing answers (see ``endurance``). This many attempts, with
    # random pauses of 1 s up to the maximum, are made where the server answers that this one call has failed; and in
    # every case by an Airflow whose supervisor is built otherwise, which does not read the task's log meanwhile.
    "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "40",
    "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "20",
    # There, each failed heartbeat is one such row. The default of 3 would end a task in an outage of half an hour.
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


def without_own(mine: Mapping[str, str]) -> dict[str, str]:
    """Return the daemon's environment without its settings, where its telemetry goes, and what opens that door; and
    without its line to systemd."""
    own = (ENV_PREFIX, OTLP_PREFIX)
    return {key: value for key, value in mine.items() if not key.upper().startswith(own) and key not in SERVICE}


def for_tasks(
    mine: Mapping[str, str], users: Mapping[str, str], worker: str = "", endpoint: str | None = None
) -> dict[str, str]:
    """Return the environment that all task processes share; ``endpoint`` is the daemon's own for their telemetry.

    Stronger first: the user's file, the daemon's environment, what makes tasks survive a remote site. Where the
    daemon's telemetry goes, and what opens that door, is not for tasks.
    """
    env = {**without_own(mine), **users}
    for key, value in PATIENCE.items():
        env.setdefault(key, value)
    own = env.get(f"{OTLP_PREFIX}ENDPOINT")
    if (own or endpoint) and not variables.disabled(env):
        if not own and endpoint:
            env[f"{OTLP_PREFIX}ENDPOINT"] = endpoint
            env.setdefault(f"{OTLP_PREFIX}PROTOCOL", "http/protobuf")
            for name in EXPORTERS:
                # What suits the collector of the daemon's environment does not suit the daemon.
                if name not in users and env.get(name, "").startswith("otlp"):
                    env[name] = "otlp"
            _reach_loopback(env)
        _instrument(env, worker)
    return env


def _instrument(env: dict[str, str], worker: str) -> None:
    """Make Airflow's tracing and any OpenTelemetry code find its way, unless the environment says otherwise."""
    # To Airflow the standard's default "otlp" is gRPC, whatever OTEL_EXPORTER_OTLP_PROTOCOL says.
    exporter = "otlp_proto_grpc" if env.get(f"{OTLP_PREFIX}PROTOCOL") == "grpc" else "otlp_proto_http"
    for name in EXPORTERS:
        if env.get(name, "otlp") in ("", "otlp"):
            env[name] = exporter
    # Airflow knows no exporter of this name, and the task would fail.
    if env["OTEL_TRACES_EXPORTER"] != "none":
        env.setdefault("AIRFLOW__TRACES__OTEL_ON", "True")
    # force_flush does not keep its own timeout: a dead collector costs a task this much, in seconds.
    env.setdefault(f"{OTLP_PREFIX}TIMEOUT", "2")
    given = env.get("OTEL_RESOURCE_ATTRIBUTES", "")
    named = {part.partition("=")[0].strip() for part in given.split(",")}
    if not env.get("OTEL_SERVICE_NAME") and names.SERVICE_NAME not in named:
        env["OTEL_SERVICE_NAME"] = "airflow-task"
    ours = {names.SERVICE_NAMESPACE: "airflow", names.WORKER_NAME: worker}
    added = [f"{name}={quote(value)}" for name, value in ours.items() if value and name not in named]
    env["OTEL_RESOURCE_ATTRIBUTES"] = ",".join([*filter(None, [given.strip().rstrip(",")]), *added])


def _reach_loopback(env: dict[str, str]) -> None:
    """Keep a proxy out of calls to the daemon. Some programs read the one spelling, some the other."""
    if not any(key.lower() in ("http_proxy", "all_proxy") and env[key] for key in env):
        return
    given = [env.get("no_proxy", ""), env.get("NO_PROXY", "")]
    hosts = [host.strip() for host in f"{','.join(given)},127.0.0.1".split(",")]
    everywhere = "*" in (text.strip() for text in given)
    env["no_proxy"] = env["NO_PROXY"] = "*" if everywhere else ",".join(dict.fromkeys(filter(None, hosts)))


def for_job(shared: Mapping[str, str], logs: Path, execution_api_url: str, executors: str | None) -> dict[str, str]:
    """Return what one job's environment has beside the shared one; ``executors`` are those of the central side."""
    env = {"AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(logs)}
    if EXECUTION_API_URL not in shared:
        env[EXECUTION_API_URL] = execution_api_url
    if EXECUTORS not in shared and executors:
        # By name alone: none of them is loaded, nor need it be installed at the site.
        env[EXECUTORS] = executors
    return env
