"""The daemon's settings, read once to a frozen object: flags, then environment, then a TOML file."""

from __future__ import annotations

import os
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from edge_otel.wire import MAX_LOG_LINES, Comment, Queues, Team, WorkerName, WorkerSettings, edge_api
from edge_worker.disconnect import KEEP, Policy, read_policy
from edge_worker.faults import BadSetting

ENV_PREFIX = "EDGE_WORKER_"


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _joined(value: Any) -> Any:
    """On the command line the policy is one word or two."""
    return " ".join(value) if isinstance(value, list) else value


def default_state_dir() -> Path:
    """Return the folder for the daemon's own files: the system's place for root, else the user's. Raises BadSetting."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/edge-worker")
    try:
        base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError:
        raise BadSetting(
            f"--state-dir is missing, and this user has no home: give it, or set {ENV_PREFIX}STATE_DIR"
        ) from None
    return Path(base) / "edge-worker"


Seconds = Annotated[float, Field(gt=0, le=86_400)]
Percent = Annotated[float, Field(ge=0, le=100)]
"""Of which 0 turns the rule off."""
Lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)


class Settings(BaseSettings):
    """Settings of ``edge-worker start``. Durations are in seconds; None leaves the value to the server."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    server: str
    token_file: Path
    name: WorkerName = Field(default_factory=lambda: os.uname().nodename if hasattr(os, "uname") else "worker")
    queues: Annotated[Queues | None, NoDecode, BeforeValidator(_split)] = None
    team: Team | None = None
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 8
    state_dir: Path = Field(default_factory=default_state_dir)
    task_python: str = "python3"
    launch: Literal["zygote", "interpreter"] = "zygote" if hasattr(os, "fork") else "interpreter"
    task_env_file: Path | None = None
    execution_api_url: str | None = None
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    proxy: str | None = None
    transport: Literal["auto", "channel", "polling"] = "auto"
    channel_retry: Seconds = 60
    heartbeat_interval: Seconds | None = None
    poll_interval: Seconds | None = None
    log_interval: Seconds | None = None
    log_rate: Annotated[float, Field(ge=0)] = 0
    """KiB of task log that are sent a second at most, as compressed; 0 is no bound."""
    telemetry_interval: Seconds | None = None
    heartbeat_sampling: Annotated[float, Field(ge=0, le=1)] | None = None
    facts_function: str | None = None
    disk_warning: Percent = 90
    disk_error: Percent = 97
    memory_warning: Percent = 0
    memory_error: Percent = 0
    automatic_maintenance_on: Annotated[Literal["error", "warning", "off"], Lower] = "off"
    automatic_maintenance_exit: Annotated[Literal["warning", "info", "off"], Lower] = "off"
    drain_timeout: Annotated[float, Field(ge=0)] = 0
    disconnect_policy: Annotated[str, BeforeValidator(_joined)] = KEEP
    kill_grace: Annotated[float, Field(ge=0)] = 10
    zygote_idle: Seconds = 300
    job_memory: Annotated[int, Field(ge=0)] = 0
    """MiB of all processes of a job; 0 is no limit, as of the next."""
    job_processes: Annotated[int, Field(ge=0)] = 0
    job_nice: Annotated[int, Field(ge=0, le=19)] = 0
    maintenance_comment: Comment | None = None
    outbox_size: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """MiB of telemetry on disk."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "text", "json"] = "auto"
    log_lines: Annotated[int, Field(ge=0, le=MAX_LOG_LINES)] = MAX_LOG_LINES
    health_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """On loopback; 0 is any free one, None is off."""

    toml: ClassVar[Path | None] = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of strength: flags, environment, TOML file."""
        order = (init_settings, env_settings)
        return (*order, TomlConfigSettingsSource(settings_cls, cls.toml)) if cls.toml else order

    @field_validator("server", "execution_api_url")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("give a full URL such as https://central.example/edge_worker")
        if parts.username or parts.password:
            raise ValueError("credentials do not belong in the URL: the token is read from --token-file")
        return value

    @field_validator("server")
    @classmethod
    def _is_ours(cls, value: str) -> str:
        return edge_api(value)

    @field_validator("proxy")
    @classmethod
    def _is_proxy(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                usable = bool(urlsplit(value).hostname) and urlsplit(value).port != 0
            except ValueError:
                usable = False
            if not usable:
                raise ValueError("give a full URL such as http://proxy.example:3128")
        return value

    @field_validator("token_file", "ca_file", "client_cert", "client_key", "task_env_file")
    @classmethod
    def _is_readable(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                with value.open("rb"):
                    pass
            except OSError as error:
                raise ValueError(f"cannot read {value}: {error.strerror}") from None
        return value

    @field_validator("task_python")
    @classmethod
    def _is_program(cls, value: str) -> str:
        found = shutil.which(value)
        if found is None:
            raise ValueError(f"{value} is not a program: give the Python that has Apache Airflow installed")
        # Not resolved: a virtual environment's Python is a link, and following it would leave the environment.
        return str(Path(found).absolute())

    @field_validator("disconnect_policy")
    @classmethod
    def _is_policy(cls, value: str) -> str:
        read_policy(value)
        return value

    @property
    def policy(self) -> Policy:
        """What a lost link means."""
        return Policy(read_policy(self.disconnect_policy), self.kill_grace)

    @field_validator("state_dir")
    @classmethod
    def _is_absolute(cls, value: Path) -> Path:
        return value.absolute()


def load(flags: dict[str, Any], config: Path | None) -> Settings:
    """Return the settings; ``flags`` holds only those that were given.

    Raises BadSetting with one line that says what to do.
    """
    config = config or (Path(named) if (named := os.environ.get(f"{ENV_PREFIX}CONFIG")) else None)
    if config is not None and not config.is_file():
        raise BadSetting(f"--config: {config} is not a file")
    source = type("FileSettings", (Settings,), {"toml": config}) if config else Settings
    try:
        settings: Settings = source(**flags)
    except ValidationError as failure:
        raise BadSetting("; ".join(_line(error) for error in failure.errors())) from None
    except ValueError as error:
        raise BadSetting(f"--config: {config}: {error}") from None
    if (settings.client_cert is None) != (settings.client_key is None):
        raise BadSetting("--client-cert and --client-key belong together: give both")
    return settings


def _line(error: Any) -> str:
    name = str(error["loc"][0])
    flag, variable = "--" + name.replace("_", "-"), ENV_PREFIX + name.upper()
    if error["type"] == "missing":
        return f"{flag} is missing: give it, or set {variable}"
    if error["type"] == "extra_forbidden":
        return f"the configuration file has an unknown setting {name!r}"
    # Never the input itself: it may be a secret in the wrong place.
    return f"{flag} ({variable}): {error['msg'].removeprefix('Value error, ')}"


def execution_api_url(settings: Settings, told: str | None) -> str:
    """Return the URL that tasks call: the local setting, what the server told, or the server's own host."""
    if settings.execution_api_url or told:
        return settings.execution_api_url or told or ""
    parts = urlsplit(settings.server)
    prefix = parts.path.rstrip("/").removesuffix("/edge_worker")
    return urlunsplit((parts.scheme, parts.netloc, f"{prefix}/execution/", "", ""))


@dataclass(frozen=True)
class Pace:
    """How often things happen. Durations are in seconds."""

    heartbeat_interval: float = 10.0
    poll_interval: float = 3.0
    log_interval: float = 1.0
    log_chunk_bytes: int = 4 * 1024 * 1024
    telemetry_interval: float = 30.0
    heartbeat_sampling: float = 0.01
    """Share of ordinary heartbeats that are recorded as spans."""
    log_rate: float = 0.0
    """Bytes of task log that are sent a second at most, as compressed; 0 is no bound."""


def pace(settings: Settings, told: WorkerSettings | None) -> Pace:
    """Return the pace: a local setting wins over what the server told, and that over the default."""
    default = Pace()
    if told is not None:
        default = Pace(
            heartbeat_interval=min(max(told.heartbeat_interval, 0.05), 3600),
            poll_interval=min(max(told.poll_interval, 0.02), 3600),
            log_interval=min(max(told.log_interval, 0.02), 3600),
            log_chunk_bytes=min(max(told.log_chunk_bytes, 1024), 64 * 1024 * 1024),
            telemetry_interval=min(max(told.telemetry_interval, 0.1), 3600),
            heartbeat_sampling=min(max(told.heartbeat_sampling, 0.0), 1.0),
        )
    return Pace(
        heartbeat_interval=settings.heartbeat_interval or default.heartbeat_interval,
        poll_interval=settings.poll_interval or default.poll_interval,
        log_interval=settings.log_interval or default.log_interval,
        log_chunk_bytes=default.log_chunk_bytes,
        telemetry_interval=settings.telemetry_interval or default.telemetry_interval,
        heartbeat_sampling=default.heartbeat_sampling
        if settings.heartbeat_sampling is None
        else settings.heartbeat_sampling,
        log_rate=settings.log_rate * 1024,
    )


def state_dir(given: Path | None, config: Path | None) -> Path:
    """Return the state folder that ``start`` would use with this option, environment and file. Raises BadSetting."""
    if given is not None:
        return given.absolute()
    config = config or (Path(named) if (named := os.environ.get(f"{ENV_PREFIX}CONFIG")) else None)
    found = os.environ.get(f"{ENV_PREFIX}STATE_DIR")
    if found is None and config is not None:
        try:
            found = tomllib.loads(config.read_text()).get("state_dir")
        except (OSError, ValueError) as error:
            raise BadSetting(f"--config: {config}: {error}") from None
        if not isinstance(found, str | None):
            raise BadSetting(f"--config: {config}: state_dir is not a path in quotes")
    return Path(found).absolute() if found else default_state_dir()
