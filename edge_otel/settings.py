"""Section ``[edge]`` of the Airflow configuration: every option with its text, read once into one frozen object."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from edge_otel import versions
from edge_otel.errors import ConfigurationInvalid

SECTION = "edge"


class Configuration(Protocol):
    """The part of Airflow's configuration that is read here (``conf``, or an executor's team-aware one)."""

    def get(self, section: str, key: str, **kwargs: Any) -> str | None: ...


def option(
    default: Any,
    text: str,
    *,
    example: str | None = None,
    at_least: float = 0,
    at_most: float = 1_000_000,
    version: bool = False,
    sensitive: bool = False,
    url: bool = False,
    template: bool = False,
    one_of: tuple[str, ...] = (),
) -> Any:
    """Declare one option: its default, its documentation, and the values it may have."""
    limits: dict[str, Any] = {"at_least": at_least, "at_most": at_most, "version": version, "url": url}
    limits["template"], limits["one_of"] = template, one_of
    return field(default=default, metadata={"text": text, "example": example, "sensitive": sensitive} | limits)


@dataclass(frozen=True)
class Settings:
    """The options of ``[edge]``. Durations are in seconds unless the name says otherwise."""

    api_enabled: bool = option(False, "Serve edge workers under `/edge_worker` in this API server.", example="True")
    api_url: str = option(
        "",
        "URL of the Edge API as workers reach it. Read by `airflow edge worker`.",
        example="https://airflow.example.com/edge_worker",
    )
    execution_api_url: str = option(
        "",
        "URL of Airflow's Execution API as task processes at the edge reach it. Empty: workers derive it from the URL"
        " they use for the Edge API (`/edge_worker` becomes `/execution/`).",
        example="https://airflow.example.com/execution/",
    )
    accept_shared_secret_tokens: bool = option(
        False,
        "Also accept the tokens of edge3 workers, signed with `[api_auth] jwt_secret`. Any holder of that secret can"
        " act as any worker, so turn it on for a migration only.",
    )
    heartbeat_interval: float = option(
        30.0, "How often a worker reports. After 5 intervals of silence it counts as gone.", at_least=0.5
    )
    job_poll_interval: float = option(5.0, "How long a polling worker waits after it found no job.", at_least=0.1)
    log_interval: float = option(1.0, "How often a worker looks for new log lines of its jobs.", at_least=0.1)
    log_chunk_bytes: int = option(
        4 * 1024 * 1024,
        "Most bytes of task log in one request, before compression.",
        at_least=1024,
        # A row has as much, which must fit into what MariaDB takes at once.
        at_most=4 * 1024 * 1024,
    )
    worker_concurrency: int = option(8, "Slots of a worker started by `airflow edge worker`.", at_least=1)
    drain_timeout_sec: float = option(
        0.0, "How long a stopping worker waits for its jobs before it sends SIGTERM; 0 waits for ever."
    )
    drain_kill_grace_sec: float = option(30.0, "Time between SIGTERM and SIGKILL.")
    offer_timeout: float = option(
        30.0, "A job that was offered to a worker and not accepted returns to the queue after this.", at_least=1
    )
    queue_look_interval: float = option(
        0.5,
        "How often the Edge API looks for queued jobs while a connected worker has a free slot. On PostgreSQL the"
        " database tells of them at once, and this counts only where it cannot (behind pgbouncer in transaction mode).",
        at_least=0.05,
        at_most=60,
    )
    heartbeats_per_second: float = option(
        50.0,
        "Heartbeats that one API process asks its connected workers for, in sum: in a large fleet the interval grows.",
        at_least=1,
    )
    channel_limit: int = option(10_000, "Most workers that may be connected to one API process.", at_least=1)
    otlp_endpoint: str = option(
        "",
        "URL of an OpenTelemetry collector (OTLP over HTTP): for the spans of executor and API, and for the telemetry"
        " of workers, which the Edge API passes on. Empty: the standard OTEL_EXPORTER_OTLP_ENDPOINT, or none.",
        example="http://otel-collector:4318",
        url=True,
    )
    otlp_headers: str = option(
        "",
        "Headers for that collector, such as a credential: `name=value,…`, values URL-encoded.",
        example="authorization=Bearer%20secret",
        sensitive=True,
    )
    otlp_task_logs: bool = option(
        True, "Send each line of task logs to that collector as a log record, with the trace of its task."
    )
    metrics_token: str = option(
        "",
        "Bearer token with which Prometheus may read `/edge_worker/metrics`. Empty: only who is on the API server's own"
        " host, and came by no proxy.",
        sensitive=True,
    )
    trace_url: str = option(
        "",
        "Where a trace is looked at, with `{trace_id}` in it: the fleet page links to it.",
        example="https://jaeger.example.com/trace/{trace_id}",
        template=True,
    )
    telemetry_interval: float = option(30.0, "How often a worker sends its metrics.", at_least=1, at_most=3600)
    heartbeat_sampling: float = option(
        0.01,
        "Share of ordinary heartbeats that are recorded as spans, 0 to 1. Those that fail, take more than a second or"
        " change the worker's state always are.",
        at_most=1,
    )
    extended_system_info_function: str = option(
        "",
        "Function (`module.function`) that returns more facts about a worker, sent with each heartbeat; its numbers"
        " become metrics, its `status` (Info, Warning, Error) counts for the automatic maintenance. It may be async."
        " Read by `airflow edge worker`.",
        example="site_facts.read",
    )
    automatic_maintenance_on: str = option(
        "Off",
        "Put a worker in maintenance when its health is this or worse: Error, Warning or Off."
        " Read by `airflow edge worker`.",
        one_of=("Error", "Warning", "Off"),
    )
    automatic_maintenance_exit: str = option(
        "Off",
        "End automatic maintenance when the health is this or better again: Warning, Info or Off."
        " Read by `airflow edge worker`.",
        one_of=("Warning", "Info", "Off"),
    )
    job_success_purge: float = option(5.0, "Minutes for which a successful job's row is kept.")
    job_fail_purge: float = option(60.0, "Minutes for which a failed or lost job's row is kept.")
    log_retention: float = option(
        30.0,
        "Days for which the log of a job that is over stays in the database, where nothing else has it"
        " (`[logging] remote_base_log_folder = edge://`). A log that has its file, and was uploaded and exported where"
        " that is configured, leaves with its job.",
        at_most=36_500,
    )
    worker_event_retention_days: float = option(
        30.0, "Days for which a worker's state history is kept.", at_most=36_500
    )
    minimum_acceptable_core_version_for_workers: str = option(
        "",
        "Oldest Airflow version on a worker that is accepted beside this server's own major.minor, which always is.",
        example="3.3.0",
        version=True,
    )
    minimum_acceptable_edge_version_for_workers: str = option(
        "",
        "Oldest version of the edge package on a worker that is accepted. Empty accepts all.",
        example="0.1.0",
        version=True,
    )
    token_file: str = option("", "File with the worker's token. Read by `airflow edge worker`.")
    state_dir: str = option(
        "", "Folder where `airflow edge worker` keeps its jobs. Empty: `edge-worker` under AIRFLOW_HOME."
    )

    @classmethod
    def read(cls, conf: Configuration) -> Settings:
        """Return the options as configured, or raise ConfigurationInvalid naming the one that is wrong."""
        return cls(**{f.name: _value(f, conf.get(SECTION, f.name, fallback=None)) for f in fields(cls)})


def _value(option_field: Any, text: str | None) -> Any:
    default, limits = option_field.default, option_field.metadata
    if text is None or text.strip() == "":
        return default
    text = text.strip()
    kind = type(default)
    if kind is str:
        if limits["version"] and versions.parsed(text) is None:
            raise _invalid(option_field, text, "must be a version")
        if limits["url"] and (rule := _broken_url_rule(text)):
            # Without the value: there may be a password in it.
            raise ConfigurationInvalid(f"[{SECTION}] {option_field.name}: {rule}.")
        if limits["template"] and not (text.startswith(("http://", "https://")) and "{trace_id}" in text):
            raise _invalid(option_field, text, "must begin with http:// or https:// and have {trace_id} in it")
        if limits["one_of"]:
            text = text.capitalize()
            if text not in limits["one_of"]:
                raise _invalid(option_field, text, f"must be one of {', '.join(limits['one_of'])}")
        return text
    if kind is bool:
        if text.lower() in ("true", "t", "1", "yes", "on"):
            return True
        if text.lower() in ("false", "f", "0", "no", "off"):
            return False
        raise _invalid(option_field, text, "must be True or False")
    try:
        number = kind(text)
    except ValueError:
        raise _invalid(option_field, text, f"must be {'a whole number' if kind is int else 'a number'}") from None
    if not limits["at_least"] <= number <= limits["at_most"]:
        raise _invalid(
            option_field, text, f"must be at least {limits['at_least']:.9g} and at most {limits['at_most']:.9g}"
        )
    return number


def _broken_url_rule(url: str) -> str | None:
    """Return what is wrong with a URL below which there are others; None where nothing is."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        return "must be a URL that begins with http:// or https:// and names a host"
    if "@" in parts.netloc:
        return "must have no user and password; a credential belongs into a header"
    return "must end with its path: no ? and no #" if "?" in url or "#" in url else None


def _invalid(option_field: Any, text: str, rule: str) -> ConfigurationInvalid:
    return ConfigurationInvalid(f"[{SECTION}] {option_field.name} = {text!r}: {rule}.")


_KINDS = {bool: "boolean", int: "integer", float: "float", str: "string"}


def documented_options() -> dict[str, dict[str, Any]]:
    """Return the section's options in the shape of Airflow's provider metadata."""
    return {
        f.name: {
            "description": f.metadata["text"],
            "version_added": None,
            "type": _KINDS[type(f.default)],
            "example": f.metadata["example"],
            "default": str(f.default) if f.default != "" else None,
            "sensitive": f.metadata["sensitive"],
        }
        for f in fields(Settings)
    }


@dataclass(frozen=True)
class LogFolder:
    """Where Airflow's FileTaskHandler reads task logs, and the permissions that it gives new ones."""

    base: Path
    new_folder_mode: int
    new_file_mode: int

    @classmethod
    def read(cls, conf: Configuration) -> LogFolder:
        """Return what section ``[logging]`` says."""
        return cls(
            Path(conf.get("logging", "base_log_folder") or "logs").expanduser(),
            _mode(conf, "file_task_handler_new_folder_permissions", "0o775"),
            _mode(conf, "file_task_handler_new_file_permissions", "0o664"),
        )


def _mode(conf: Configuration, key: str, default: str) -> int:
    text = conf.get("logging", key, fallback=default) or default
    try:
        return int(text, 8)
    except ValueError:
        raise ConfigurationInvalid(f"[logging] {key} = {text!r}: must be an octal number, such as {default}.") from None


def airflow_configuration() -> Configuration:
    """Return Airflow's configuration, loaded when it is asked for."""
    from airflow.configuration import conf

    configuration: Configuration = conf
    return configuration
