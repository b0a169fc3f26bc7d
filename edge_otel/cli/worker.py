"""``airflow edge worker``: turns section ``[edge]`` into the flags of the daemon, and becomes it."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path

from airflow.configuration import AIRFLOW_HOME, conf
from airflow.utils.providers_configuration_loader import providers_configuration_loaded

from edge_otel.cli.command import fail
from edge_otel.errors import EdgeError
from edge_otel.settings import Settings

_EDGE3_PATH = "/v1/rpcapi"


@providers_configuration_loaded
def start(args: Namespace) -> None:
    """Replace this process by ``edge-worker``: the daemon carries nothing of Airflow in its memory."""
    try:
        settings = Settings.read(conf)
    except EdgeError as error:
        fail(str(error))
    if not settings.api_url:
        fail("[edge] api_url is not set: the URL of the Edge API, for example https://airflow.example.com/edge_worker")
    if not settings.token_file:
        fail("[edge] token_file is not set: a file with the token that `airflow edge token create` printed")
    os.execv(sys.executable, [sys.executable, "-m", "edge_worker", "start", *_flags(args, settings)])  # noqa: S606


def _flags(args: Namespace, settings: Settings) -> list[str]:
    flags = {
        # edge3's users have the path of its own API in api_url.
        "--server": settings.api_url.rstrip("/").removesuffix(_EDGE3_PATH),
        "--token-file": settings.token_file,
        "--state-dir": settings.state_dir or str(Path(AIRFLOW_HOME) / "edge-worker"),
        "--concurrency": str(args.concurrency or settings.worker_concurrency),
        "--drain-timeout": str(settings.drain_timeout_sec),
        "--kill-grace": str(settings.drain_kill_grace_sec),
        "--task-python": sys.executable,
        "--queues": args.queues,
        "--name": args.edge_hostname,
        "--team": args.team_name,
        "--execution-api-url": settings.execution_api_url,
        "--facts-function": settings.extended_system_info_function,
        "--automatic-maintenance-on": settings.automatic_maintenance_on,
        "--automatic-maintenance-exit": settings.automatic_maintenance_exit,
    }
    # Off is the daemon's own default, which its environment may overrule.
    return [part for flag, value in flags.items() if value and value != "Off" for part in (flag, value)] + list(
        args.options
    )
