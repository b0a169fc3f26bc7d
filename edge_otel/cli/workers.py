"""``airflow edge workers``: see the workers, and ask things of them."""

from __future__ import annotations

from argparse import Namespace
from datetime import UTC, datetime

from airflow.cli.simple_table import AirflowConsole

from edge_otel.cli.command import comma_separated, edge_command, fail, user
from edge_otel.models import workers
from edge_otel.models.session import new_session
from edge_otel.wire import SystemFacts, stopped_after


@edge_command
def list_(args: Namespace) -> None:
    """Print all workers."""
    now = datetime.now(UTC)
    with new_session() as session:
        rows = [
            {
                "worker": worker.name,
                "state": worker.state,
                "team": worker.team or "",
                "queues": ",".join(worker.queues) if worker.queues is not None else "",
                "jobs": str(worker.jobs_active),
                "slots": str(worker.slots if worker.slots_wanted is None else worker.slots_wanted),
                "heartbeat": f"{(now - worker.last_heartbeat).total_seconds():.0f} s ago",
                "when cut off": _policy(worker.sysinfo),
                "maintenance": ": ".join(filter(None, (worker.maintenance_origin, worker.maintenance_comment))),
            }
            for worker in workers.every(session)
        ]
        AirflowConsole().print_as(data=rows, output=args.output)


@edge_command
def maintenance(args: Namespace) -> None:
    """Begin or end a worker's maintenance."""
    now = datetime.now(UTC)
    with new_session() as session:
        if args.switch == "on":
            if args.comment and len(args.comment) > 1024:
                fail("--comment: at most 1024 characters")
            workers.request_maintenance(session, args.worker, args.comment, now, by=user())
        else:
            workers.end_maintenance(session, args.worker, now, by=user())
        print(f"{args.worker}: {workers.get(session, args.worker).state}")  # noqa: T201


@edge_command
def shutdown(args: Namespace) -> None:
    """Ask a worker to stop."""
    with new_session() as session:
        workers.request_shutdown(session, args.worker, datetime.now(UTC), by=user())
        print(f"{args.worker}: {workers.get(session, args.worker).state}")  # noqa: T201


@edge_command
def queues(args: Namespace) -> None:
    """Change a worker's queues."""
    names = comma_separated(args.queues, "--queues")
    if names is None:
        fail("--queues is missing: name the queues")
    with new_session() as session:
        add, drop = (names, []) if args.change == "add" else ([], names)
        now_served = workers.change_queues(session, args.worker, add, drop)
        print(f"{args.worker}: {'all queues' if now_served is None else ','.join(now_served) or 'no queue'}")  # noqa: T201


@edge_command
def concurrency(args: Namespace) -> None:
    """Set a worker's slots."""
    if not 0 < args.slots <= 100_000:
        fail(
            f"{args.slots}: the number of slots is from 1 to 100000; to stop a worker from taking jobs, use maintenance"
        )
    with new_session() as session:
        workers.set_concurrency(session, args.worker, args.slots)
        print(f"{args.worker}: {args.slots} slots")  # noqa: T201


@edge_command
def remove(args: Namespace) -> None:
    """Forget a worker."""
    with new_session() as session:
        workers.remove(session, args.worker)
        print(f"{args.worker}: removed")  # noqa: T201


def _policy(sysinfo: SystemFacts) -> str:
    """Return what becomes of a worker's jobs when it reaches no server, for people."""
    silence = stopped_after(sysinfo)
    return "keeps jobs" if silence is None else f"jobs stopped in {silence.total_seconds():g} s"
