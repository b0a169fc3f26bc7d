"""``airflow edge worker``: turns section ``[edge]`` into the flags of the daemon, and becomes it; likewise the commands
for the worker on this machine."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import NoReturn

from airflow.configuration import AIRFLOW_HOME, conf
from airflow.utils.providers_configuration_loader import providers_configuration_loaded

from edge_otel.cli.command import fail
from edge_otel.errors import EdgeError
from edge_otel.settings import Settings
from edge_otel.wire import edge_api


@providers_configuration_loaded
def start(args: Namespace) -> None:
    """Replace this process by ``edge-worker``: the daemon carries nothing of Airflow in its memory."""
    settings = _settings()
    if args.daemon:
        fail(
            "--daemon: the worker stays in the foreground. Let systemd or another supervisor run it"
            " (worker/systemd/edge-worker.service), and read its log there."
        )
    if not settings.api_url:
        fail("[edge] api_url is not set: the URL of the Edge API, for example https://airflow.example.com/edge_worker")
    if not settings.token_file:
        fail("[edge] token_file is not set: a file with the token that `airflow edge token create` printed")
    for name in ("pid", "stdout", "stderr", "log_file", "umask"):
        if getattr(args, name):
            print(f"--{name.replace('_', '-')} is not used, and does nothing.", file=sys.stderr)  # noqa: T201
    _become("start", *_flags(args, settings))


@providers_configuration_loaded
def status(args: Namespace) -> None:
    """Show how the worker on this machine is."""
    _become("status", "--output", "json", *_found(_settings()))


@providers_configuration_loaded
def maintenance(args: Namespace) -> None:
    """Begin or end maintenance of the worker on this machine."""
    if args.maintenance == "off":
        _become("maintenance", "off", *_found(_settings()))
    if not args.comment:
        fail("--comments is missing: say why, for those who look centrally")
    waits = ["--wait"] if args.wait else []
    _become("maintenance", "on", "--comment", args.comment, *waits, *_found(_settings()))


@providers_configuration_loaded
def stop(args: Namespace) -> None:
    """Drain the worker on this machine."""
    _become("drain", *(["--wait"] if args.wait else []), *_found(_settings()))


def _settings() -> Settings:
    try:
        return Settings.read(conf)
    except EdgeError as error:
        fail(str(error))


def _become(*arguments: str) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "edge_worker", *arguments])  # noqa: S606


def _found(settings: Settings) -> list[str]:
    """Return the flag by which the daemon on this machine is found."""
    return ["--state-dir", settings.state_dir or str(Path(AIRFLOW_HOME) / "edge-worker")]


def _flags(args: Namespace, settings: Settings) -> list[str]:
    flags = {
        "--server": edge_api(settings.api_url),
        "--token-file": settings.token_file,
        "--concurrency": str(settings.worker_concurrency if args.concurrency is None else args.concurrency),
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
        "--log-level": "debug" if args.verbose else "",
    }
    # Off is the daemon's own default, which its environment may overrule.
    given = [part for flag, value in flags.items() if value and value != "Off" for part in (flag, value)]
    return [*_found(settings), *given, *args.options]
