"""What crosses the network, and nothing else: the bodies of v1 and v2 as pydantic models, with their limits.

v1 keeps the field names of edge3 5.1.0. Fields that edge3 does not know have defaults and are ignored by its worker.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    OnErrorOmit,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from edge_otel.state import WorkerState

CLAIM_HEADER = "X-Claim"
WORKER_HEADER = "X-Edge-Worker"
"""Who sends telemetry; counts for a token that is for several workers."""
ERROR_HEADER = "X-Edge-Error"
"""Name of the error, as in the body: the answer to HEAD has none."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.@:-]*$"

NO_NUL = r"^[^\x00]+$"
"""Databases take no NUL in text."""


def _without_nul(text: str) -> str:
    return text.replace("\x00", "\ufffd")


WorkerName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=NAME_PATTERN)]
Queue = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=NO_NUL)]
Team = Annotated[str, StringConstraints(min_length=1, max_length=50, pattern=NO_NUL)]
Session = Annotated[str, StringConstraints(min_length=1, max_length=36, pattern=r"^[\x21-\x7e]+$")]
Coordinate = Annotated[str, StringConstraints(min_length=1, max_length=250, pattern=NO_NUL)]
Number = Annotated[int, Field(ge=-1, lt=2**31)]
MAX_QUEUES = 64
Queues = Annotated[list[Queue], Field(max_length=MAX_QUEUES)]
MAX_COMMENT = 1024
Comment = Annotated[str, StringConstraints(max_length=MAX_COMMENT), AfterValidator(_without_nul)]
FactName = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_without_nul)]
FactText = Annotated[str, StringConstraints(max_length=1024), AfterValidator(_without_nul)]
FactInteger = Annotated[int, Field(ge=-(2**63), lt=2**63)]
FactNumber = Annotated[float, Field(allow_inf_nan=False)]
MAX_FACTS = 64
SystemFacts = Annotated[dict[FactName, FactText | FactInteger | FactNumber], Field(max_length=MAX_FACTS)]
"""Facts about the worker and its host. ``airflow_version`` and ``edge_provider_version`` are required in v1."""
STOPPED_AFTER = "jobs_stopped_after"
"""Fact: the seconds without an answer after which the worker has stopped its jobs; absent where it keeps them."""
OWN_FACTS = frozenset(
    {
        *("airflow_version", "edge_provider_version", "python_version", "os", "worker_start_time"),
        *("status", "concurrency", "free_concurrency"),
        *("cpu_percent", "memory_percent", "memory_total", "disk_percent", "load1", "load5"),
        *("clock_skew", STOPPED_AFTER, "log_backlog", "outbox_size", "outbox_dropped"),
    }
)
"""Facts that our worker reports itself; every other number is one of its user's. ``status`` is its health, as a logging
level. ``clock_skew``: seconds that it is ahead of the server; backlog and outbox are bytes, dropped are payloads."""
MAX_SLOTS = 100_000
Count = Annotated[int, Field(ge=0, le=MAX_SLOTS)]
Claim = Annotated[int, Field(ge=0, le=2**31 - 1)]
ByteCount = Annotated[int, Field(ge=0, lt=2**63)]
# MySQL's timestamps end in January 2038.
_FIRST, _LAST = datetime(1971, 1, 1, tzinfo=UTC), datetime(2038, 1, 1, tzinfo=UTC) - timedelta(seconds=1)
Time = Annotated[AwareDatetime, Field(ge=_FIRST, le=_LAST)]


def _told_time(time: datetime) -> datetime:
    """Return the nearest time that can be stored: what a host without a clock says is still worth reading."""
    return min(max(time, _FIRST), _LAST)


def _none_if_malformed(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:
        return None


def in_words(text: str) -> WrapValidator:
    """Return what says ``text`` in place of what pydantic finds wrong with a value."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(text) from None

    return WrapValidator(validate)


MAX_LOG_LINES, MAX_LOG_TEXT = 50, 1024
"""Lines of its log in one report of a worker, and characters of each."""


class LogLine(BaseModel):
    """One line of a daemon's own log."""

    model_config = ConfigDict(frozen=True)

    number: Annotated[int, Field(ge=1, lt=2**63)]
    time: Annotated[AwareDatetime, AfterValidator(_told_time)]
    level: Annotated[int, Field(ge=0, le=100)]
    """As of ``logging``: 20 is INFO."""
    logger: Annotated[str, StringConstraints(max_length=64), AfterValidator(_without_nul)] = ""
    text: Annotated[str, StringConstraints(max_length=MAX_LOG_TEXT), AfterValidator(_without_nul)]


class DaemonLog(BaseModel):
    """The newest lines of a daemon's own log. A line that is malformed is left out."""

    source: Session
    """Random per process of the daemon: within it numbers rise, and a number again is the same line again."""
    lines: Annotated[list[OnErrorOmit[LogLine]], Field(max_length=MAX_LOG_LINES)]


class JobRef(BaseModel):
    """One job as one claim of it."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    claim: Claim
    slots: Count = 0
    """Those that it holds now: 0 once its process has ended."""


class WorkerReport(BaseModel):
    """Body of registration and of every heartbeat."""

    state: WorkerState
    jobs_active: Count = 0
    queues: Queues | None = None
    """None takes jobs of every queue that the token allows."""
    sysinfo: SystemFacts
    maintenance_comments: Comment | None = None
    maintenance_origin: Literal["local", "automatic"] | None = None
    team_name: Team | None = None
    session: Session | None = None
    """Random per daemon start; absent from edge3 workers."""
    heartbeat_interval: Annotated[float, Field(ge=0.1, le=86_400)] | None = None
    """Seconds between this worker's heartbeats, by which its silence is judged; None: as the server told it."""
    jobs: Annotated[list[JobRef], Field(max_length=10_000)] | None = None
    """Jobs that run here or ran here unreported; absent from edge3 workers."""
    log: Annotated[DaemonLog | None, WrapValidator(_none_if_malformed)] = None
    """What it has logged since the last report that was answered; None where that is nothing. Whatever is wrong with
    it, the report counts."""

    @property
    def logged(self) -> list[tuple[str, LogLine]]:
        """The lines of its log, each with its source."""
        return [(self.log.source, line) for line in self.log.lines] if self.log else []

    @property
    def slots(self) -> int | None:
        """The worker's concurrency; None where it says none that can be."""
        slots = self.sysinfo.get("concurrency")
        return int(slots) if isinstance(slots, int | float) and 0 <= slots <= MAX_SLOTS else None


class WorkerSettings(BaseModel):
    """What the server tells a worker to work with; a local setting wins over it. Durations are in seconds."""

    heartbeat_interval: float
    poll_interval: float
    log_interval: float
    log_chunk_bytes: int
    execution_api_url: str | None = None
    executors: str | None = None
    """``[core] executor`` of the central side, without which a DAG whose tasks name one of them does not parse."""
    server_time: datetime
    otlp: bool = False
    """The gateway has a collector to pass telemetry on to."""
    telemetry_interval: float = 30.0
    heartbeat_sampling: float = 0.01
    """Share of ordinary heartbeats that are recorded as spans."""
    token_renewal: bool = False
    """The server gives running tasks new tokens."""


class WorkerReply(BaseModel):
    """Answer to registration and heartbeat: the worker obeys ``state``, ``queues`` and ``concurrency``."""

    state: WorkerState
    last_update: datetime
    queues: list[str] | None = None
    maintenance_comments: str | None = None
    maintenance_origin: str | None = None
    """Who wants the maintenance: ``admin``, or what the worker said."""
    concurrency: int | None = None
    """Set by an administrator; None leaves the worker its own value."""
    versions_match: bool = False
    settings: WorkerSettings | None = None


class QueuesChange(BaseModel):
    """Queues to add to and to remove from a worker."""

    new_queues: Queues | None = None
    remove_queues: Queues | None = None


class FetchRequest(BaseModel):
    """A worker with free slots asks for one job."""

    queues: Queues | None = None
    team_name: Team | None = None
    free_concurrency: Annotated[int, Field(ge=-100_000, le=100_000)]
    supports_task_instance_uuid: bool = False
    claims: bool = False
    """The worker starts a job only after its ``running`` report was answered, and runs every kind of workload."""
    session: Session | None = None


class JobOffer(BaseModel):
    """A job, offered to one worker under one claim number."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int
    command: dict[str, Any]
    """Airflow's workload (ExecuteTask, ExecuteCallback or TestConnection) as JSON; holds its token."""
    concurrency_slots: int
    task_instance_id: UUID
    """The job's id: that of the task instance, callback or connection test."""
    claim: int = 0
    queue: str = "default"
    carrier: dict[str, str] = Field(default_factory=dict)
    """W3C trace context of the task."""
    queued_at: datetime | None = None


ReportedState = Literal["running", "success", "failed", "queued", "restarting", "up_for_retry", "removed"]
"""Job states a v1 worker may put in the path; ``queued`` declines an offer."""


class JobOutcome(BaseModel):
    """How a job ended, and how much it logged."""

    exit_code: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = None
    """As of ``waitpid``: negative is a signal."""
    error: Annotated[str, StringConstraints(max_length=4096), AfterValidator(_without_nul)] | None = None
    log_length: ByteCount | None = None
    log_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None


class JobReport(JobOutcome):
    """Body of a job's state report; edge3 sends ``task_instance_id`` alone, or nothing."""

    task_instance_id: UUID | None = None
    claim: Claim | None = None


class TaskToken(BaseModel):
    """A token of a task for Airflow's Execution API."""

    token: Annotated[str, Field(repr=False)]


class LogPush(BaseModel):
    """A piece of log text from an edge3 worker; the same time sent again is the same piece."""

    log_chunk_time: Time
    log_chunk_data: Annotated[str, StringConstraints(max_length=16 * 1024 * 1024)]
    task_instance_id: UUID | None = None


class Health(BaseModel):
    """Answer of the health endpoints."""

    status: str
    detail: str | None = None


class ErrorBody(BaseModel):
    """The one shape of every refusal and failure."""

    error: str
    """Name of the error, for programs."""
    detail: str
    """What happened and what to do, for people."""
    error_id: str
    """Finds the entry in the server's log."""
    errors: list[dict[str, Any]] | None = None
    """Per field, for malformed input."""


def edge_api(url: str) -> str:
    """Return the URL of the Edge API of one that may be edge3's, whose ``[edge] api_url`` ends with its own path."""
    return url.rstrip("/").removesuffix("/v1/rpcapi")


def stopped_after(sysinfo: SystemFacts) -> timedelta | None:
    """Return the silence after which a worker with these facts has stopped its jobs; None where it keeps them."""
    seconds = sysinfo.get(STOPPED_AFTER)
    return timedelta(seconds=seconds) if isinstance(seconds, int | float) and 0 < seconds < 1e9 else None
