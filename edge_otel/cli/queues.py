"""``airflow edge queues``."""

from __future__ import annotations

from argparse import Namespace
from datetime import UTC, datetime

from edge_otel.cli.command import edge_command
from edge_otel.cli.output import print_rows, said, span
from edge_otel.models import queue_view
from edge_otel.models.session import new_session
from edge_otel.views import QueueRow


@edge_command
def list_(args: Namespace) -> None:
    """Print the queues that have jobs, or that a worker names."""
    with new_session() as session:
        rows = queue_view.every(session, datetime.now(UTC))
    print_rows(rows, _columns, args.output)


def _columns(row: QueueRow) -> dict[str, str]:
    return {
        "queue": row.queue,
        "team": said(row.team),
        "queued": str(row.queued),
        "oldest": "" if row.oldest_age is None else span(row.oldest_age),
        "assigned": str(row.assigned),
        "running": str(row.running),
        "workers": str(row.workers),
        "slots": f"{row.slots_used}/{row.slots}",
    }
