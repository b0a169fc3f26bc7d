"""What the fleet page and the commands show, as pydantic models; times are UTC, durations and ages are seconds."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel


class LoadHistory(BaseModel):
    """Samples of a host's load, oldest first, a minute apart."""

    at: datetime | None = None
    """Of the newest."""
    cpu: list[int | None] = []
    """Percent."""
    memory: list[int | None] = []


class WorkerRow(BaseModel):
    """One worker in a list."""

    name: str
    state: str
    state_since: datetime
    state_cause: str
    """heartbeat, registered, expired, worker, or admin:<user>."""
    team: str | None
    queues: list[str] | None
    """None: every queue."""
    slots: int | None
    slots_used: int
    jobs: int
    """Assigned to it and running there, by the server's account."""
    last_heartbeat: datetime
    heartbeat_age: float
    heartbeat_interval: float
    late: bool
    """Connected by its state, and silent for more than two intervals."""
    transport: str
    """channel or polling."""
    health: str | None
    """Info, Warning or Error, as the worker says."""
    cpu_percent: float | None
    memory_percent: float | None
    disk_percent: float | None
    load_history: LoadHistory
    clock_skew: float | None
    """Seconds that its clock is ahead of the server's."""
    edge_version: str
    airflow_version: str
    maintenance_comment: str | None
    maintenance_origin: str | None
    """admin, local or automatic."""
    jobs_stopped_after: float | None
    """Seconds without an answer after which it has stopped its jobs; None: it keeps them."""
    first_online: datetime


class WorkersPage(BaseModel):
    """Some of the workers that match."""

    workers: list[WorkerRow]
    total: int
    states: dict[str, int]
    """How many match in each state, whatever the states asked for."""
    at: datetime
    """The server's time."""


class EventRow(BaseModel):
    """One entry of a worker's history."""

    at: datetime
    from_state: str | None
    to_state: str
    cause: str
    detail: str | None
    trace_id: str | None


class JobRow(BaseModel):
    """One job."""

    id: str
    kind: str
    """task, callback or connection_test."""
    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int
    queue: str
    state: str
    worker: str | None
    team: str | None
    slots: int
    priority: int
    queued_at: datetime
    accepted_at: datetime | None
    ended_at: datetime | None
    exit_code: int | None
    error: str | None
    trace_id: str | None


class JobsPage(BaseModel):
    """Some of the jobs that match, the newest first."""

    jobs: list[JobRow]
    total: int
    states: dict[str, int]
    """How many match in each state, whatever the states asked for."""
    at: datetime


class LogLine(BaseModel):
    """One line of a daemon's log."""

    at: datetime
    level: str
    logger: str
    text: str


class WorkerDetail(BaseModel):
    """All that is known of one worker."""

    worker: WorkerRow
    facts: dict[str, Any]
    """As the worker reported them."""
    token_id: str | None
    events: list[EventRow]
    """The newest first."""
    jobs: list[JobRow]
    """Those that it has, then its last ones."""
    log: list[LogLine]
    """The daemon's, oldest first."""
    log_hidden: bool
    """Who asks may not act on this worker: log and trace ids of events are left out, as they name jobs of any DAG."""
    at: datetime


class QueueRow(BaseModel):
    """One queue of one team."""

    queue: str
    team: str | None
    queued: int
    assigned: int
    running: int
    oldest_age: float | None
    """Seconds that the first of the queued jobs has waited."""
    workers: int
    """That serve it and take jobs."""
    slots: int
    """Of those workers; they may serve other queues as well."""
    slots_used: int
    """Held by jobs of this queue."""


class QueuesPage(BaseModel):
    """Some of the queues that match: first those with waiting jobs that nobody serves, then those where most wait."""

    queues: list[QueueRow]
    total: int
    teams: bool
    """Whether any queue, of those that do not match as well, is a team's."""


class TokenRow(BaseModel):
    """A worker token, without its secret."""

    id: str
    worker: str
    queues: list[str] | None
    team: str | None
    state: str
    """valid, expired or revoked."""
    created_at: datetime
    created_by: str | None
    expires_at: datetime
    last_used_at: datetime | None
    rotated_to: str | None


class TokensPage(BaseModel):
    """Some of the tokens that match."""

    tokens: list[TokenRow]
    total: int
    states: dict[str, int]
    """How many match in each state, whatever the states asked for."""
    at: datetime


class NewToken(BaseModel):
    """A token that was just made: the only time that its text is seen."""

    token: str
    row: TokenRow
