"""``airflow edge workers``, ``jobs`` and ``queues`` as Airflow's command line wants them declared."""

from __future__ import annotations

from airflow.cli.cli_config import ARG_OUTPUT, ActionCommand, Arg, GroupCommand, lazy_load_command

_ARG_WORKERS = Arg(("worker",), nargs="*", help="Names or globs, such as 'site7-*'; '*' is every worker")
_ARG_QUEUE = Arg(
    ("--queue",), action="append", metavar="QUEUE", help="Workers that serve it; again, or a,b, for any of several"
)
_ARG_STATE = Arg(
    ("--state",), action="append", metavar="STATE", help="Workers in this state; again, or a,b, for any of several"
)
_ARG_TEAM = Arg(("--team",), help="Workers of this team")
_WHICH = (_ARG_WORKERS, _ARG_QUEUE, _ARG_STATE, _ARG_TEAM)

ARG_ANSWERS = Arg(
    ("-o", "--output"),
    choices=("text", "table", "json", "yaml", "plain"),
    metavar="(text, table, json, yaml, plain)",
    default="text",
    help="Output format: text, the default, is a line for each worker as soon as it is done",
)
_ARG_DRY_RUN = Arg(("--dry-run",), action="store_true", help="Only say what would become of each worker")
_ARG_YES = Arg(("-y", "--yes"), action="store_true", help="Do not ask, though several workers are meant")
_CHANGE = (*_WHICH, _ARG_DRY_RUN, _ARG_YES, ARG_ANSWERS)
_WAIT = (
    Arg(("-w", "--wait"), action="store_true", help="Return when the workers have done it"),
    Arg(("--timeout",), type=float, metavar="SECONDS", help="Wait no longer than this, and end with code 1"),
)
_ARG_COMMENT = Arg(("-c", "--comment"), metavar="TEXT", help="Why; shown beside the worker")
_ARG_NEW_COMMENT = Arg(("-c", "--comment"), metavar="TEXT", required=True, help="Why; shown beside the worker")
_ARG_QUEUES = Arg(("-q", "--queues"), metavar="A,B", required=True, help="The queues to change, separated by commas")

_CODES = "Exit code: 0 when all was done; 1 when a worker refused, or none was meant."


def _examples(*lines: str) -> str:
    return "\n".join(["examples:", *(f"  airflow edge {line}" for line in lines), "", _CODES])


_MAINTENANCE = (
    ActionCommand(
        name="on",
        help="Let workers finish their jobs and take no more",
        func=lazy_load_command("edge_otel.cli.change.maintenance_on"),
        args=(*_CHANGE, *_WAIT, _ARG_COMMENT),
        epilog=_examples(
            "workers maintenance on site-1 --comment 'new disks'",
            "workers maintenance on 'site7-*' site-9 --yes --wait --timeout 600",
            "workers maintenance on --queue gpu --state idle,running --dry-run",
        ),
    ),
    ActionCommand(
        name="off",
        help="Let workers take jobs again",
        func=lazy_load_command("edge_otel.cli.change.maintenance_off"),
        args=(*_CHANGE, *_WAIT),
        epilog=_examples(
            "workers maintenance off site-1",
            "workers maintenance off --state 'maintenance mode' --yes",
        ),
    ),
    ActionCommand(
        name="comment",
        help="Say anew why workers are in maintenance",
        func=lazy_load_command("edge_otel.cli.change.maintenance_comment"),
        args=(*_CHANGE, _ARG_NEW_COMMENT),
        epilog=_examples("workers maintenance comment site-1 --comment 'disks come on Friday'"),
    ),
)

_QUEUES = (
    ActionCommand(
        name="add",
        help="Let connected workers serve more queues",
        func=lazy_load_command("edge_otel.cli.change.queues_add"),
        args=(*_CHANGE, _ARG_QUEUES),
        epilog=_examples(
            "workers queues add site-1 --queues gpu,night",
            "workers queues add --queue default --queues night --yes",
        ),
    ),
    ActionCommand(
        name="remove",
        help="Let connected workers serve fewer queues",
        func=lazy_load_command("edge_otel.cli.change.queues_remove"),
        args=(*_CHANGE, _ARG_QUEUES),
        epilog=_examples("workers queues remove site-1 site-2 --queues night --yes"),
    ),
)

_WORKERS = (
    ActionCommand(
        name="list",
        help="List the workers",
        func=lazy_load_command("edge_otel.cli.workers.list_"),
        args=(*_WHICH, ARG_OUTPUT),
        epilog="examples:\n"
        "  airflow edge workers list 'site7-*' --state unknown,offline\n"
        "  airflow edge workers list --queue gpu --output json",
    ),
    ActionCommand(
        name="show",
        help="Show all that is known of a worker: facts, history, jobs, the end of its log",
        func=lazy_load_command("edge_otel.cli.workers.show"),
        args=(
            Arg(("worker",), help="Name of the worker"),
            Arg(("--actions",), action="store_true", help="Of the history the last 100 things that people did"),
            ARG_OUTPUT,
        ),
    ),
    GroupCommand(name="maintenance", help="Let workers take no jobs for a while", subcommands=_MAINTENANCE),
    ActionCommand(
        name="shutdown",
        help="Let connected workers finish their jobs and stop",
        func=lazy_load_command("edge_otel.cli.change.shutdown"),
        args=(*_CHANGE, *_WAIT),
        epilog=_examples("workers shutdown site-1 --wait", "workers shutdown --team red --state idle --yes"),
    ),
    GroupCommand(name="queues", help="Let connected workers serve other queues", subcommands=_QUEUES),
    ActionCommand(
        name="concurrency",
        help="Set the number of slots of connected workers",
        func=lazy_load_command("edge_otel.cli.change.concurrency"),
        args=(*_CHANGE, Arg(("slots",), type=int, help="Number of slots")),
        epilog=_examples("workers concurrency site-1 8", "workers concurrency 'site7-*' 4 --yes"),
    ),
    ActionCommand(
        name="remove",
        help="Forget workers that are gone, and whose running jobs are settled",
        func=lazy_load_command("edge_otel.cli.change.remove"),
        args=_CHANGE,
        epilog=_examples("workers remove site-1", "workers remove '*' --state offline,unknown --yes"),
    ),
)

_PART = "part of its name"
_JOBS = (
    ActionCommand(
        name="list",
        help="List the jobs, the last queued first",
        func=lazy_load_command("edge_otel.cli.jobs.list_"),
        args=(
            Arg(
                ("--state",),
                action="append",
                metavar="STATE",
                help="queued, assigned, running, success, failed or lost; again, or a,b, for any of several",
            ),
            Arg(("--dag",), metavar="TEXT", default="", help=f"DAG: {_PART}"),
            Arg(("--task",), metavar="TEXT", default="", help=f"Task: {_PART}"),
            Arg(("--run",), metavar="TEXT", default="", help="DAG run: part of its id"),
            Arg(("--queue",), metavar="QUEUE", help="Queue: its whole name"),
            Arg(("--worker",), metavar="TEXT", default="", help="Worker: its whole name"),
            Arg(("--team",), metavar="TEAM", help="Team: its whole name"),
            Arg(("--limit",), type=int, default=50, metavar="N", help="Most jobs to list (%(default)s)"),
            ARG_OUTPUT,
        ),
        epilog="examples:\n"
        "  airflow edge jobs list --state queued,running --queue gpu\n"
        "  airflow edge jobs list --worker site-1 --limit 500 --output json",
    ),
)

FLEET_COMMANDS = (
    GroupCommand(name="workers", help="Edge workers, as the central site knows them", subcommands=_WORKERS),
    GroupCommand(name="jobs", help="Jobs of edge workers: waiting, running, and just over", subcommands=_JOBS),
    ActionCommand(
        name="queues",
        help="List the queues: jobs that wait and run, and the workers that serve them",
        func=lazy_load_command("edge_otel.cli.queues.list_"),
        args=(Arg(("list",), nargs="?", choices=("list",), help="May be left out"), ARG_OUTPUT),
    ),
)
