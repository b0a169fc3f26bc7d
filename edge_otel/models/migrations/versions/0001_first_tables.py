"""First tables"""

import sqlalchemy as sa
from airflow.utils.sqlalchemy import UtcDateTime
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# What the columns were at this revision: a migration must not follow later changes of the tables.
Id = sa.String(36).with_variant(mysql.VARCHAR(36, charset="ascii", collation="ascii_bin"), "mysql")
Name = sa.String(64).with_variant(mysql.VARCHAR(64, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")
Coordinate = sa.String(250).with_variant(mysql.VARCHAR(250, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")
QueueName = sa.String(256).with_variant(mysql.VARCHAR(256, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")
Team = sa.String(50).with_variant(mysql.VARCHAR(50, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")
LongText = sa.Text().with_variant(mysql.LONGTEXT(charset="utf8mb4"), "mysql")
Bytes = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql")
Serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "edge_otel_job",
        sa.Column("id", Id, nullable=False),
        sa.Column("known_as", Id, nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("dag_id", Coordinate, nullable=False),
        sa.Column("task_id", Coordinate, nullable=False),
        sa.Column("run_id", Coordinate, nullable=False),
        sa.Column("map_index", sa.Integer(), nullable=False),
        sa.Column("try_number", sa.Integer(), nullable=False),
        sa.Column("queue", QueueName, nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("urgency", sa.SmallInteger(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("team", Team, nullable=True),
        sa.Column("workload", LongText, nullable=False),
        sa.Column("carrier", sa.JSON(), nullable=False),
        sa.Column("log_path", sa.String(length=2048), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("claim", sa.Integer(), nullable=False),
        sa.Column("worker", Name, nullable=True),
        sa.Column("holders", sa.JSON(), nullable=False),
        sa.Column("revoked", sa.Integer(), nullable=False),
        sa.Column("queued_at", UtcDateTime(), nullable=False),
        sa.Column("assigned_at", UtcDateTime(), nullable=True),
        sa.Column("offer_expires_at", UtcDateTime(), nullable=True),
        sa.Column("accepted_at", UtcDateTime(), nullable=True),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.Column("changed_at", UtcDateTime(), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("log_ends", sa.JSON(), nullable=False),
        sa.Column("log_complete", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("edge_otel_job_changed", "edge_otel_job", ["changed_at"])
    op.create_index("edge_otel_job_known_as", "edge_otel_job", ["known_as"])
    op.create_index(
        "edge_otel_job_next",
        "edge_otel_job",
        ["state", "urgency", sa.literal_column("priority DESC"), "queued_at", "queue"],
    )
    op.create_index(
        "edge_otel_job_task",
        "edge_otel_job",
        ["dag_id", "run_id", "task_id"],
        mysql_length={"dag_id": 64, "run_id": 64, "task_id": 64},
    )
    op.create_index("edge_otel_job_worker", "edge_otel_job", ["worker", "state"])

    op.create_table(
        "edge_otel_token",
        sa.Column("id", Id, nullable=False),
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("worker", Name, nullable=False),
        sa.Column("queues", sa.JSON(), nullable=True),
        sa.Column("team", Team, nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(length=256), nullable=True),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.Column("revoked_at", UtcDateTime(), nullable=True),
        sa.Column("last_used_at", UtcDateTime(), nullable=True),
        sa.Column("rotated_to", Id, nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "edge_otel_worker",
        sa.Column("name", Name, nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("state_since", UtcDateTime(), nullable=False),
        sa.Column("state_cause", sa.String(length=256), nullable=False),
        sa.Column("team", Team, nullable=True),
        sa.Column("queues", sa.JSON(), nullable=True),
        sa.Column("slots", sa.Integer(), nullable=True),
        sa.Column("slots_wanted", sa.Integer(), nullable=True),
        sa.Column("jobs_active", sa.Integer(), nullable=False),
        sa.Column("sysinfo", sa.JSON(), nullable=False),
        sa.Column("load_history", sa.JSON(), nullable=False),
        sa.Column("maintenance_comment", sa.String(length=1024), nullable=True),
        sa.Column("maintenance_origin", sa.String(length=10), nullable=True),
        sa.Column("comments_replaced", sa.JSON(), nullable=True),
        sa.Column("token_id", Id, nullable=True),
        sa.Column("session", Id, nullable=True),
        sa.Column("connection", Id, nullable=True),
        sa.Column("log_end", sa.JSON(), nullable=False),
        sa.Column("heartbeat_interval", sa.Double(), nullable=False),
        sa.Column("first_online", UtcDateTime(), nullable=False),
        sa.Column("last_heartbeat", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("edge_otel_worker_heartbeat", "edge_otel_worker", ["state", "last_heartbeat"])

    op.create_table(
        "edge_otel_worker_event",
        sa.Column("id", Serial, autoincrement=True, nullable=False),
        sa.Column("worker", Name, nullable=False),
        sa.Column("from_state", sa.String(length=20), nullable=True),
        sa.Column("to_state", sa.String(length=20), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("cause", sa.String(length=256), nullable=False),
        sa.Column("detail", sa.String(length=1280), nullable=True),
        sa.Column("trace_id", sa.String(length=32), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("edge_otel_worker_event_at", "edge_otel_worker_event", ["at"])
    op.create_index("edge_otel_worker_event_of", "edge_otel_worker_event", ["worker", "at"])

    op.create_table(
        "edge_otel_worker_log",
        sa.Column("worker", Name, nullable=False),
        sa.Column("upto", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("source", Id, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("logger", sa.String(length=64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("worker", "upto"),
    )

    op.create_table(
        "edge_otel_log",
        sa.Column("job_id", Id, nullable=False),
        sa.Column("known_as", Id, nullable=True),
        sa.Column("path", sa.String(length=2048), nullable=True),
        sa.Column("about", sa.JSON(), nullable=False),
        sa.Column("carrier", sa.JSON(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("changed_at", UtcDateTime(), nullable=False),
        sa.Column("upload", sa.String(length=8), nullable=False),
        sa.Column("upload_at", UtcDateTime(), nullable=True),
        sa.Column("uploaded", sa.JSON(), nullable=False),
        sa.Column("fault", sa.Text(), nullable=True),
        sa.Column("export_due", sa.Boolean(), nullable=False),
        sa.Column("export_at", UtcDateTime(), nullable=True),
        sa.Column("exported", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_index("edge_otel_log_changed", "edge_otel_log", ["changed_at"])
    op.create_index("edge_otel_log_known_as", "edge_otel_log", ["known_as"])
    op.create_index("edge_otel_log_upload", "edge_otel_log", ["upload", "upload_at"])
    op.create_index("edge_otel_log_export", "edge_otel_log", ["export_due", "export_at"])

    op.create_table(
        "edge_otel_log_chunk",
        sa.Column("job_id", Id, nullable=False),
        sa.Column("claim", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column("data", Bytes, nullable=False),
        sa.Column("pushed_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["edge_otel_log.job_id"], name="edge_otel_log_chunk_log", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "claim", "offset"),
    )
    if op.get_bind().dialect.name == "postgresql":
        # It is compressed already: PostgreSQL would spend half the time of an insert on trying that again.
        op.execute("ALTER TABLE edge_otel_log_chunk ALTER COLUMN data SET STORAGE EXTERNAL")


def downgrade() -> None:
    for table in ("log_chunk", "log", "job", "worker_log", "worker_event", "worker", "token"):
        op.drop_table(f"edge_otel_{table}")
