"""``airflow edge``: the commands as Airflow's command line wants them declared. Their work is in the other files."""

from __future__ import annotations

from typing import Any

from airflow.cli.cli_config import ARG_OUTPUT, ActionCommand, Arg, GroupCommand, lazy_load_command

from edge_otel.cli.edge3_names import ALSO_OF_WORKER, EDGE3_COMMANDS
from edge_otel.cli.fleet_commands import FLEET_COMMANDS

_ARG_TOKEN_ID = Arg(("token_id",), help="The token's public id: the part between `ewt_` and the dot")

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

_WORKER = ActionCommand(
    name="worker",
    help="Run an edge worker configured by the section `edge`; what follows `--` goes to `edge-worker start`",
    func=lazy_load_command("edge_otel.cli.worker.start"),
    args=(
        Arg(("-q", "--queues"), help="Queues to serve, separated by commas; all that the token allows if not given"),
        Arg(("-c", "--concurrency"), type=int, help="Slots; the option worker_concurrency if not given"),
        Arg(("-H", "--edge-hostname"), help="Name of the worker; the host's name if not given"),
        Arg(("-t", "--team-name"), help="Team that the worker belongs to"),
        *ALSO_OF_WORKER,
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
                *FLEET_COMMANDS,
                *EDGE3_COMMANDS,
                _WORKER,
                _API,
            ),
        )
    ]
