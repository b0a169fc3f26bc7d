"""``airflow edge``: the commands as Airflow's command line wants them declared. Their work is in the other files."""

from __future__ import annotations

from typing import Any

from airflow.cli.cli_config import ARG_OUTPUT, ActionCommand, Arg, GroupCommand, lazy_load_command

_ARG_TOKEN_ID = Arg(("token_id",), help="The token's public id: the part between `ewt_` and the dot")
_ARG_WORKER = Arg(("worker",), help="Name of the worker")
_ARG_COMMENT = Arg(("-c", "--comment"), help="Why; shown beside the worker")
_ARG_QUEUES = Arg(("-q", "--queues"), help="Names, separated by commas")

_TOKEN = (
    ActionCommand(
        name="create",
        help="Create a token for a worker, and show it this once",
        func=lazy_load_command("edge_otel.cli.token.create"),
        args=(
            Arg(("-w", "--worker"), required=True, help="Worker name, or a glob for a group: `site7-*`"),
            Arg(("-q", "--queues"), help="Queues it may serve, separated by commas; all if not given"),
            Arg(("-t", "--team"), help="Team that the worker belongs to"),
            Arg(("--expires-days",), type=float, default=365.0, help="Days until it expires (default: %(default)s)"),
            ARG_OUTPUT,
        ),
    ),
    ActionCommand(
        name="list",
        help="List the tokens, without their secrets",
        func=lazy_load_command("edge_otel.cli.token.list_"),
        args=(ARG_OUTPUT,),
    ),
    ActionCommand(
        name="revoke",
        help="Make a token worthless at once",
        func=lazy_load_command("edge_otel.cli.token.revoke"),
        args=(_ARG_TOKEN_ID, ARG_OUTPUT),
    ),
    ActionCommand(
        name="rotate",
        help="Create a token that takes over from another; the old one stays valid for a while",
        func=lazy_load_command("edge_otel.cli.token.rotate"),
        args=(
            _ARG_TOKEN_ID,
            Arg(("--overlap-hours",), type=float, default=24.0, help="Hours for which both are valid (%(default)s)"),
            ARG_OUTPUT,
        ),
    ),
)

_WORKERS = (
    ActionCommand(
        name="list",
        help="List the workers",
        func=lazy_load_command("edge_otel.cli.workers.list_"),
        args=(ARG_OUTPUT,),
    ),
    ActionCommand(
        name="maintenance",
        help="Let a worker finish its jobs and take no more, or end that",
        func=lazy_load_command("edge_otel.cli.workers.maintenance"),
        args=(Arg(("switch",), choices=("on", "off"), help="on or off"), _ARG_WORKER, _ARG_COMMENT),
    ),
    ActionCommand(
        name="shutdown",
        help="Ask a worker to finish its jobs and stop",
        func=lazy_load_command("edge_otel.cli.workers.shutdown"),
        args=(_ARG_WORKER,),
    ),
    ActionCommand(
        name="queues",
        help="Add queues to a connected worker, or remove them",
        func=lazy_load_command("edge_otel.cli.workers.queues"),
        args=(Arg(("change",), choices=("add", "remove"), help="add or remove"), _ARG_WORKER, _ARG_QUEUES),
    ),
    ActionCommand(
        name="concurrency",
        help="Set the number of slots of a connected worker",
        func=lazy_load_command("edge_otel.cli.workers.concurrency"),
        args=(_ARG_WORKER, Arg(("slots",), type=int, help="Number of slots")),
    ),
    ActionCommand(
        name="remove",
        help="Forget a worker that is gone",
        func=lazy_load_command("edge_otel.cli.workers.remove"),
        args=(_ARG_WORKER,),
    ),
)

_WORKER = ActionCommand(
    name="worker",
    help="Run an edge worker configured by the section `edge`; what follows `--` goes to `edge-worker start`",
    func=lazy_load_command("edge_otel.cli.worker.start"),
    args=(
        Arg(("-q", "--queues"), help="Queues to serve, separated by commas; all that the token allows if not given"),
        Arg(("-c", "--concurrency"), type=int, help="Slots; the option worker_concurrency if not given"),
        Arg(("-H", "--edge-hostname"), help="Name of the worker; the host's name if not given"),
        Arg(("--team-name",), help="Team that the worker belongs to"),
        Arg(("options",), nargs="*", help="Further options of `edge-worker start`"),
    ),
)

_API = ActionCommand(
    name="api",
    help="Serve the Edge API without the rest of Airflow's API server, under the same path `/edge_worker`",
    func=lazy_load_command("edge_otel.cli.api.serve"),
    args=(
        Arg(("--host",), default="0.0.0.0", help="Address to listen on (%(default)s: all of this machine's)"),  # noqa: S104
        Arg(("--port",), type=int, default=8790, help="Port to listen on (%(default)s)"),
        Arg(("--workers",), type=int, default=1, help="Number of processes (%(default)s)"),
        Arg(("--ssl-cert",), help="File with the certificate, for HTTPS"),
        Arg(("--ssl-key",), help="File with the certificate's key"),
    ),
)


def get_cli_commands() -> list[Any]:
    """Return the group ``airflow edge``."""
    return [
        GroupCommand(
            name="edge",
            help="Edge workers, their tokens and their API",
            subcommands=(
                GroupCommand(name="token", help="Tokens of edge workers", subcommands=_TOKEN),
                GroupCommand(name="workers", help="Edge workers, as the central site knows them", subcommands=_WORKERS),
                _WORKER,
                _API,
            ),
        )
    ]
