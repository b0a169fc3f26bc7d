"""The tables. Their names share nothing with edge3's, so both can live in one database."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.utils.sqlalchemy import UtcDateTime
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# An id is 36 characters of ASCII: on MySQL a utf8mb4 key of that length would be four times as wide.
Id = String(36).with_variant(mysql.VARCHAR(36, charset="ascii", collation="ascii_bin"), "mysql")
# Names are compared byte by byte: MySQL's default collations would take "Site7" and "site7" for one worker.
Name = String(64).with_variant(mysql.VARCHAR(64, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")
Coordinate = String(250).with_variant(mysql.VARCHAR(250, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")
QueueName = String(256).with_variant(mysql.VARCHAR(256, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")
Team = String(50).with_variant(mysql.VARCHAR(50, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")
LongText = Text().with_variant(mysql.LONGTEXT(charset="utf8mb4"), "mysql")
Bytes = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql")
Serial = BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    """Root of the tables; the metadata is ours alone."""

    metadata = MetaData()
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JSON, list[str]: JSON(none_as_null=True)}  # noqa: RUF012


class Worker(Base):
    """A worker by its name, as it last reported and as administrators want it."""

    __tablename__ = "edge_otel_worker"

    name: Mapped[str] = mapped_column(Name, primary_key=True)
    state: Mapped[str] = mapped_column(String(20))
    state_since: Mapped[datetime]
    state_cause: Mapped[str] = mapped_column(String(256))
    """As of the event."""
    team: Mapped[str | None] = mapped_column(Team)
    queues: Mapped[list[str] | None]
    """None takes jobs of every queue."""
    slots: Mapped[int | None] = mapped_column(Integer)
    """Concurrency as the worker reported it."""
    slots_wanted: Mapped[int | None] = mapped_column(Integer)
    """Concurrency as an administrator set it; None leaves the worker its own."""
    jobs_active: Mapped[int] = mapped_column(Integer, default=0)
    sysinfo: Mapped[dict[str, Any]]
    load_history: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """CPU and memory over the last hour, as of ``edge_otel.load_history``; empty where it never told them."""
    maintenance_comment: Mapped[str | None] = mapped_column(String(1024))
    maintenance_origin: Mapped[str | None] = mapped_column(String(10))
    """admin, local or automatic."""
    comments_replaced: Mapped[list[str] | None]
    """By administrators, of a maintenance of the worker's own: one that says one of these has not heard yet."""
    token_id: Mapped[str | None] = mapped_column(Id)
    """None for a worker that holds edge3's shared secret."""
    session: Mapped[str | None] = mapped_column(Id)
    """Random per daemon start; None for edge3 workers."""
    connection: Mapped[str | None] = mapped_column(Id)
    """Random per channel: the one that counts, of those that were opened; None for a worker that polls."""
    log_end: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Of the last line of its log that is stored: ``source``, ``number`` and ``upto``; empty before the first."""
    heartbeat_interval: Mapped[float]
    """Seconds, as the worker was told."""
    first_online: Mapped[datetime]
    last_heartbeat: Mapped[datetime]

    __table_args__ = (Index("edge_otel_worker_heartbeat", "state", "last_heartbeat"),)


class WorkerEvent(Base):
    """One change of a worker's stored state, or of what an administrator wants of it."""

    __tablename__ = "edge_otel_worker_event"

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    worker: Mapped[str] = mapped_column(Name)
    from_state: Mapped[str | None] = mapped_column(String(20))
    to_state: Mapped[str] = mapped_column(String(20))
    at: Mapped[datetime]
    cause: Mapped[str] = mapped_column(String(256))
    """heartbeat, registered, expired, worker, or admin:<user>."""
    detail: Mapped[str | None] = mapped_column(String(1280))
    """What an administrator did, in words."""
    trace_id: Mapped[str | None] = mapped_column(String(32))

    __table_args__ = (
        Index("edge_otel_worker_event_of", "worker", "at"),
        Index("edge_otel_worker_event_at", "at"),
    )


class WorkerLog(Base):
    """One of the last lines of a worker's own log."""

    __tablename__ = "edge_otel_worker_log"

    worker: Mapped[str] = mapped_column(Name, primary_key=True)
    upto: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    """What this line and all before it count for: by it they are in order, and the oldest go."""
    source: Mapped[str] = mapped_column(Id)
    """Random per process of the daemon."""
    number: Mapped[int] = mapped_column(BigInteger)
    """Of the line, from its source; where one is missing, a line was dropped on the way."""
    at: Mapped[datetime]
    """By the worker's clock."""
    level: Mapped[int] = mapped_column(SmallInteger)
    """As of ``logging``."""
    logger: Mapped[str] = mapped_column(String(64))
    text: Mapped[str] = mapped_column(Text)


class Job(Base):
    """One workload: queued, held by a worker, or finished."""

    __tablename__ = "edge_otel_job"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    """Of the task instance, the callback or the connection test. Airflow gives a task another one for every try, but
    not after a try that ended before it reached the task."""
    known_as: Mapped[str | None] = mapped_column(Id)
    """Of an earlier try whose id another one has by now: that id, by which its worker still names it; ``id`` is its
    own. None: it is known by ``id``."""
    kind: Mapped[str] = mapped_column(String(16))
    """task, callback or connection_test."""
    dag_id: Mapped[str] = mapped_column(Coordinate)
    task_id: Mapped[str] = mapped_column(Coordinate)
    run_id: Mapped[str] = mapped_column(Coordinate)
    map_index: Mapped[int] = mapped_column(Integer)
    try_number: Mapped[int] = mapped_column(Integer)
    queue: Mapped[str] = mapped_column(QueueName)
    slots: Mapped[int] = mapped_column(Integer)
    urgency: Mapped[int] = mapped_column(SmallInteger)
    """0 goes first: callbacks and connection tests; 1 for tasks."""
    priority: Mapped[int] = mapped_column(Integer)
    team: Mapped[str | None] = mapped_column(Team)
    workload: Mapped[str] = mapped_column(LongText)
    """Airflow's workload as JSON, with its token."""
    carrier: Mapped[dict[str, Any]]
    log_path: Mapped[str | None] = mapped_column(String(2048))
    """Where Airflow's FileTaskHandler looks, relative to its base folder; None where there is no log."""
    state: Mapped[str] = mapped_column(String(16))
    claim: Mapped[int] = mapped_column(Integer, default=0)
    worker: Mapped[str | None] = mapped_column(Name)
    """Who holds the job, or held it last."""
    holders: Mapped[dict[str, Any]]
    """Worker by claim number, for earlier claims under which the task ran: their logs may still be coming."""
    revoked: Mapped[int] = mapped_column(Integer, default=0)
    """The last claim that was taken away from its worker: nobody wants its process, though its log may still come."""
    queued_at: Mapped[datetime]
    assigned_at: Mapped[datetime | None]
    offer_expires_at: Mapped[datetime | None]
    accepted_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    changed_at: Mapped[datetime]
    """Of state, worker or claim: what executors read by."""
    exit_code: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None] = mapped_column(Text)
    log_ends: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """By claim number, of the present one and of ``holders``: length and SHA-256 of what the task logged under it, as
    the worker said at its end; two nulls where the worker never says (edge3)."""
    log_complete: Mapped[bool] = mapped_column(Boolean, default=False)
    """The log file stands where Airflow looks for it."""

    __table_args__ = (
        # The queue is in it so that thousands of jobs of a queue that nobody serves are passed over without their rows.
        Index("edge_otel_job_next", "state", "urgency", priority.desc(), "queued_at", "queue"),
        Index("edge_otel_job_changed", "changed_at"),
        Index("edge_otel_job_worker", "worker", "state"),
        Index("edge_otel_job_known_as", "known_as"),
        Index(
            "edge_otel_job_task",
            "dag_id",
            "run_id",
            "task_id",
            mysql_length={"dag_id": 64, "run_id": 64, "task_id": 64},
        ),
    )


class Log(Base):
    """What a job logged. It stays when its job's row goes, for as long as the bytes have no other home."""

    __tablename__ = "edge_otel_log"

    job_id: Mapped[str] = mapped_column(Id, primary_key=True)
    known_as: Mapped[str | None] = mapped_column(Id)
    """As of the job."""
    path: Mapped[str | None] = mapped_column(String(2048))
    """The job's ``log_path``."""
    about: Mapped[dict[str, Any]]
    """Whose log it is: dag_id, task_id, run_id, map_index, try_number, queue, team; and workers, by claim number."""
    carrier: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    """When the job, as it was at the first bytes, had last changed."""
    changed_at: Mapped[datetime]
    """When the file was last written whole; until then, as ``created_at``."""
    upload: Mapped[str] = mapped_column(String(8), default="none")
    """To Airflow's remote log: none (not whole yet), due (the file stands), begun or done. A log that goes on after
    that (its task was deferred) is none again, and the remote log may hold its beginning."""
    upload_at: Mapped[datetime | None]
    """Before this, no other attempt at the upload."""
    uploaded: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """What the remote log has: ``done``, bytes by claim number; and ``begun``, the same after an attempt of which it
    is not known yet what came of it."""
    fault: Mapped[str | None] = mapped_column(Text)
    """Which bytes had not come when the file was written, or that it is not what its worker sent; in words."""
    export_due: Mapped[bool] = mapped_column(Boolean, default=True)
    """There are bytes, or an end, that were not sent as OTLP log records."""
    export_at: Mapped[datetime | None]
    """Before this, nobody else sends them."""
    exported: Mapped[dict[str, Any]]
    """Up to where the lines were sent as log records, by claim number: the byte, and whether that is within a line that
    was cut off."""

    __table_args__ = (
        Index("edge_otel_log_changed", "changed_at"),
        Index("edge_otel_log_known_as", "known_as"),
        Index("edge_otel_log_upload", "upload", "upload_at"),
        Index("edge_otel_log_export", "export_due", "export_at"),
    )


class LogChunk(Base):
    """A range of the bytes that one claim of a job logged."""

    __tablename__ = "edge_otel_log_chunk"

    job_id: Mapped[str] = mapped_column(
        Id, ForeignKey("edge_otel_log.job_id", ondelete="CASCADE", name="edge_otel_log_chunk_log"), primary_key=True
    )
    claim: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """A task that was deferred runs again under the same id: its log goes on in the next claim."""
    offset: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    """Of the first byte, from the start of this claim's log."""
    length: Mapped[int] = mapped_column(Integer)
    """Bytes before compression."""
    data: Mapped[bytes] = mapped_column(Bytes)
    """Compressed with zlib."""
    pushed_at: Mapped[datetime | None]
    """The time that an edge3 worker gave the piece: the same time again is the same piece."""


class Token(Base):
    """A worker's credential, without its secret."""

    __tablename__ = "edge_otel_token"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    secret_sha256: Mapped[str] = mapped_column(String(64))
    worker: Mapped[str] = mapped_column(Name)
    """A name, or a glob for an autoscaled group."""
    queues: Mapped[list[str] | None]
    """None allows every queue."""
    team: Mapped[str | None] = mapped_column(Team)
    created_at: Mapped[datetime]
    created_by: Mapped[str | None] = mapped_column(String(256))
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    rotated_to: Mapped[str | None] = mapped_column(Id)
    """The token that takes over; this one stays valid until ``expires_at``."""
