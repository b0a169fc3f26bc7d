"""``airflow edge workers list`` and ``show``."""

from __future__ import annotations

from argparse import Namespace
from datetime import UTC, datetime

from edge_otel.cli.command import edge_command, fail
from edge_otel.cli.jobs import job_columns
from edge_otel.cli.output import ago, print_data, print_facts, print_rows, print_table, said, span
from edge_otel.cli.selecting import selected
from edge_otel.models import fleet_view
from edge_otel.models.session import new_session
from edge_otel.views import EventRow, LogLine, WorkerDetail, WorkerRow


@edge_command
def list_(args: Namespace) -> None:
    """Print the workers that are meant; all, where nothing is said."""
    missing = _list(args)
    if missing:
        fail(f"None of those workers has this name: {', '.join(missing)}")


@edge_command
def list_by_pattern(args: Namespace) -> None:
    """Print the workers that match, as edge3 does: that there is none is no error, also of a pattern without signs."""
    _list(args)


def _list(args: Namespace) -> list[str]:
    """Print the workers that are meant, and return the names that none of them has."""
    now, selection = datetime.now(UTC), selected(args)
    with new_session() as session:
        names = [found.name for found in fleet_view.select_workers(session, selection)]
        rows = fleet_view.rows(session, names, now)
    print_rows(rows, lambda row: {"worker": row.name, **_columns(row, now)}, args.output)
    return sorted(selection.exact_names.difference(names))


@edge_command
def show(args: Namespace) -> None:
    """Print all that is known of one worker."""
    now = datetime.now(UTC)
    with new_session() as session:
        detail = fleet_view.detail(session, args.worker, now, actions=args.actions)
    if args.output in ("json", "yaml"):
        print_data(detail.model_dump(mode="json"), args.output)
        return
    print_facts({"worker": detail.worker.name} | _columns(detail.worker, now) | _further(detail))
    for title, rows in (
        ("HISTORY, the newest first", [_event(event) for event in detail.events]),
        ("JOBS that it has, and had", [job_columns(job, now) for job in detail.jobs]),
        ("LOG of the daemon", [_line(line) for line in detail.log]),
    ):
        print(f"\n{title}")  # noqa: T201
        print_table(rows, args.output)


def _columns(row: WorkerRow, now: datetime) -> dict[str, str]:
    stopped = row.jobs_stopped_after
    return {
        "state": row.state,
        "since": f"{ago(row.state_since, now)} ({row.state_cause})",
        "heartbeat": ago(row.last_heartbeat, now) + (", late" if row.late else ""),
        "team": said(row.team),
        "queues": "all" if row.queues is None else ",".join(row.queues) or "none",
        "slots": f"{row.slots_used}/{'?' if row.slots is None else row.slots}",
        "jobs": str(row.jobs),
        "health": said(row.health),
        "versions": f"{row.edge_version}, Airflow {row.airflow_version}",
        "when cut off": "keeps jobs" if stopped is None else f"jobs stopped in {stopped:g} s",
        "maintenance": ": ".join(filter(None, (row.maintenance_origin, row.maintenance_comment))),
    }


def _further(detail: WorkerDetail) -> dict[str, str]:
    row = detail.worker
    known = {
        "transport": row.transport,
        "first online": f"{row.first_online:%Y-%m-%d %H:%M:%S} UTC",
        "heartbeat interval": span(row.heartbeat_interval),
        "token": said(detail.token_id),
    }
    return known | {f"fact: {name}": said(value) for name, value in sorted(detail.facts.items())}


def _event(event: EventRow) -> dict[str, str]:
    return {
        "at (UTC)": f"{event.at:%Y-%m-%d %H:%M:%S}",
        "from": said(event.from_state),
        "to": event.to_state,
        "cause": event.cause,
        "detail": said(event.detail),
        "trace": said(event.trace_id),
    }


def _line(line: LogLine) -> dict[str, str]:
    return {
        "at (UTC)": f"{line.at:%Y-%m-%d %H:%M:%S}",
        "level": line.level,
        "logger": line.logger,
        "text": line.text,
    }
