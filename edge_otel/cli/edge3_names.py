"""The names under which users of the Edge provider edge3 5.1.0 know the commands: declarations for our own work."""

from __future__ import annotations

from argparse import SUPPRESS

from airflow.cli.cli_config import ARG_OUTPUT, ActionCommand, Arg, lazy_load_command

from edge_otel.cli.fleet_commands import ARG_ANSWERS
from edge_otel.state import GONE, WorkerState

_ARG_PID = Arg(("--pid",), metavar="FILE", help="Not used: the daemon is found by `[edge] state_dir`")
_ARG_VERBOSE = Arg(("-v", "--verbose"), action="store_true", help="Say more")

ALSO_OF_WORKER = (
    _ARG_PID,
    Arg(("-v", "--verbose"), action="store_true", help="The daemon's log has everything: `--log-level debug`"),
    Arg(("-D", "--daemon"), action="store_true", help="Not there: let systemd run the worker"),
    *(
        Arg(flags, metavar="VALUE", help="Not used: it belonged to --daemon")
        for flags in (("--stdout",), ("--stderr",), ("-l", "--log-file"), ("-u", "--umask"))
    ),
)
"""Further options of ``airflow edge worker``."""


def _fixed(name: str, value: list[str] | None) -> Arg:
    """Return an argument of our own command that has this value."""
    return Arg((f"--{name}",), action="append", default=value, help=SUPPRESS)


_ARG_NAME = Arg(("-H", "--edge-hostname"), dest="worker", action="append", required=True, help="Name of the worker")
_ARG_COMMENT = Arg(("-c", "--comments", "--comment"), dest="comment", required=True, help="Why")
_ARG_QUEUES = Arg(("-q", "--queues"), required=True, help="Names, separated by commas")
_ARG_YES = Arg(("-y", "--yes"), action="store_true", help="Do not ask")
_ARG_DRY_RUN = Arg(("--dry-run",), action="store_true", help="Only say what would become of the worker")
_ONE = (_ARG_NAME, _fixed("queue", None), _fixed("state", None), _fixed("team", None))
_HOW = (_ARG_YES, _ARG_DRY_RUN, ARG_ANSWERS)


def _of_one(name: str, ours: str, work: str, *args: Arg) -> ActionCommand:
    return ActionCommand(
        name=name,
        help=f"The same as `airflow edge workers {ours}`",
        func=lazy_load_command(f"edge_otel.cli.change.{work}"),
        args=(*_ONE, *args, *_HOW),
    )


EDGE3_COMMANDS = (
    ActionCommand(
        name="status",
        help="Show how the worker on this machine is, as JSON; `edge-worker status` is for people",
        func=lazy_load_command("edge_otel.cli.worker.status"),
        args=(_ARG_PID, _ARG_VERBOSE),
    ),
    ActionCommand(
        name="maintenance",
        help="Let the worker on this machine take no jobs for a while; for others, `airflow edge workers maintenance`",
        func=lazy_load_command("edge_otel.cli.worker.maintenance"),
        args=(
            Arg(("maintenance",), choices=("on", "off"), help="on or off"),
            Arg(("-c", "--comments", "--comment"), dest="comment", help="Why"),
            Arg(("-w", "--wait"), action="store_true", help="Return when its jobs are over"),
            _ARG_PID,
            _ARG_VERBOSE,
        ),
    ),
    ActionCommand(
        name="stop",
        help="Let the worker on this machine finish its jobs and leave, as `edge-worker drain`",
        func=lazy_load_command("edge_otel.cli.worker.stop"),
        args=(Arg(("-w", "--wait"), action="store_true", help="Return when it has left"), _ARG_PID, _ARG_VERBOSE),
    ),
    ActionCommand(
        name="list-workers",
        help="The same as `airflow edge workers list`",
        func=lazy_load_command("edge_otel.cli.workers.list_by_pattern"),
        args=(
            Arg(("--worker-name-pattern",), dest="worker", action="append", default=[], help="Glob: 'site7-*'"),
            Arg(("-s", "--state"), nargs="+", help="Workers in one of these states"),
            Arg(("-q", "--queues"), dest="queue", action="append", help="Workers that serve one of these: a,b"),
            _fixed("team", None),
            ARG_OUTPUT,
        ),
    ),
    _of_one("remote-edge-worker-request-maintenance", "maintenance on", "maintenance_on", _ARG_COMMENT),
    _of_one("remote-edge-worker-exit-maintenance", "maintenance off", "maintenance_off"),
    _of_one(
        "remote-edge-worker-update-maintenance-comment", "maintenance comment", "maintenance_comment", _ARG_COMMENT
    ),
    _of_one("remove-remote-edge-worker", "remove", "remove"),
    _of_one("shutdown-remote-edge-worker", "shutdown", "shutdown"),
    _of_one("add-worker-queues", "queues add", "queues_add", _ARG_QUEUES),
    _of_one("remove-worker-queues", "queues remove", "queues_remove", _ARG_QUEUES),
    _of_one(
        "set-worker-concurrency",
        "concurrency",
        "concurrency",
        Arg(("-c", "--concurrency"), dest="slots", type=int, required=True, help="Number of slots"),
    ),
    ActionCommand(
        name="shutdown-all-workers",
        help="Let all connected workers finish their jobs and stop",
        func=lazy_load_command("edge_otel.cli.change.shutdown_all"),
        args=(
            _fixed("worker", ["*"]),
            _fixed("queue", None),
            _fixed("state", [str(state) for state in WorkerState if state not in GONE]),
            _fixed("team", None),
            *_HOW,
        ),
    ),
)
