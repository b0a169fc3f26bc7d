"""The command ``edge-worker``. Exit codes: 0 left in order, 2 bad configuration, 3 refused, 4 replaced."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_otel import __version__
from edge_worker.faults import BadSetting

if TYPE_CHECKING:
    from edge_worker.facts import UserFacts
    from edge_worker.host import TaskInterpreter
    from edge_worker.logexport import LogExport
    from edge_worker.settings import Settings

BAD_CONFIGURATION = 2

_LOCAL = ("maintenance", "status", "drain", "stop")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(
        prog="edge-worker",
        description="Run Apache Airflow tasks at a remote site, for a central Airflow with edge-otel.",
        epilog="Every option of start is also read from EDGE_WORKER_<OPTION> and from the file given with --config. "
        "Exit codes: 0 left in order, 2 bad configuration, 3 refused by the server, 4 replaced by another daemon.",
    )
    top.add_argument("--version", action="version", version=f"edge-worker {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    start = commands.add_parser(
        "start",
        help="run the daemon",
        description="Run the daemon in the foreground. SIGTERM and SIGINT drain; a second one stops jobs, too.",
        epilog="Strength: options, environment EDGE_WORKER_..., the TOML file, what the server sent, defaults.",
        argument_default=argparse.SUPPRESS,
    )
    _add_start_options(start)
    for name, text in (
        ("status", "show the daemon of a state folder, as JSON"),
        ("drain", "take no more jobs and leave when the present ones have ended"),
        ("stop", "stop the jobs and leave"),
    ):
        command = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        command.add_argument("--state-dir", type=Path, help="folder of the daemon")
        command.add_argument("--config", type=Path, help="TOML file that names the folder")
    maintenance = commands.add_parser(
        "maintenance",
        help="take no jobs for a while",
        description="Take no jobs until it is ended; remembered over restarts.",
    )
    maintenance.add_argument("switch", choices=["on", "off"])
    maintenance.add_argument("--comment", default="", help="why, for those who look centrally")
    maintenance.add_argument("--state-dir", type=Path, help="folder of the daemon")
    maintenance.add_argument("--config", type=Path, help="TOML file that names the folder")
    return top


def _add_start_options(start: argparse.ArgumentParser) -> None:
    site = start.add_argument_group("the central site")
    site.add_argument("--server", metavar="URL", help="such as https://central.example/edge_worker")
    site.add_argument("--token-file", metavar="FILE", help="holds this worker's token; read again when it is refused")
    site.add_argument("--ca-file", metavar="FILE", help="certificates to trust instead of the system's")
    site.add_argument("--client-cert", metavar="FILE", help="certificate to show, with --client-key")
    site.add_argument("--client-key", metavar="FILE", help="its private key")
    site.add_argument("--proxy", metavar="URL", help="default: HTTPS_PROXY, HTTP_PROXY and NO_PROXY")
    site.add_argument(
        "--transport",
        metavar="auto|channel|polling",
        help="auto, the default: one WebSocket, or asking by HTTP where there can be none; or only one of them",
    )
    site.add_argument(
        "--channel-retry", metavar="SECONDS", help="until auto tries the WebSocket again, growing to 600; default: 60"
    )
    site.add_argument("--execution-api-url", metavar="URL", help="for tasks; default: as the server says")
    worker = start.add_argument_group("this worker")
    worker.add_argument("--name", help="default: the host's name")
    worker.add_argument("--queues", metavar="A,B", help="queues to take jobs of; default: all that the token allows")
    worker.add_argument("--team", help="team whose jobs to take")
    worker.add_argument("--concurrency", metavar="N", help="slots for jobs; default: 8")
    worker.add_argument("--state-dir", metavar="DIR", help="for the daemon's own files, one daemon each")
    worker.add_argument("--maintenance-comment", metavar="TEXT", help="start in maintenance, with this comment")
    tasks = start.add_argument_group("tasks")
    tasks.add_argument("--task-python", metavar="PYTHON", help="has Apache Airflow; default: python3")
    tasks.add_argument("--task-env-file", metavar="FILE", help="KEY=VALUE lines for the environment of tasks")
    tasks.add_argument("--launch", metavar="zygote|interpreter", help="fork from a loaded process, or start anew")
    tasks.add_argument("--zygote-idle", metavar="SECONDS", help="without jobs until it goes; default: 300")
    tasks.add_argument("--drain-timeout", metavar="SECONDS", help="before jobs get SIGTERM; default: 0, never")
    tasks.add_argument("--kill-grace", metavar="SECONDS", help="from SIGTERM to SIGKILL; default: 10")
    limits = start.add_argument_group("limits of each job; one that uses more is ended and says so; default: 0, none")
    limits.add_argument("--job-memory", metavar="MIB", help="of all its processes together")
    limits.add_argument("--job-processes", metavar="N", help="at a time; Airflow's own are 2 of them")
    limits.add_argument("--job-nice", metavar="N", help="lower priority for CPU time, 1 to 19 as of nice(1)")
    pace = start.add_argument_group("pace (default: as the server says)")
    pace.add_argument("--heartbeat-interval", metavar="SECONDS")
    pace.add_argument("--poll-interval", metavar="SECONDS", help="between questions for a job")
    pace.add_argument("--log-interval", metavar="SECONDS", help="between pieces of one growing log")
    pace.add_argument("--log-rate", metavar="KIB", help="of task log sent a second at most; default: 0, no bound")
    pace.add_argument("--telemetry-interval", metavar="SECONDS", help="between metrics, and calls of --facts-function")
    pace.add_argument("--heartbeat-sampling", metavar="RATIO", help="of ordinary heartbeats recorded as spans, 0 to 1")
    health = start.add_argument_group("health and automatic maintenance")
    health.add_argument(
        "--facts-function",
        metavar="MODULE:FUNCTION",
        help="of yours, importable here (PYTHONPATH), async or not: returns a dict of facts about this worker (text,"
        " numbers, times); its numbers become metrics, and its status (20 or info, 30 or warning, 40 or error), which"
        " status_text explains, counts for the health",
    )
    for what, text, usual in (
        ("disk", "the state folder's file system is full to", ("90", "97")),
        ("memory", "memory is in use to", ("0", "0")),
    ):
        for level, default in zip(("warning", "error"), usual, strict=True):
            health.add_argument(
                f"--{what}-{level}",
                metavar="PERCENT",
                help=f"health is {level} when {text} this; 0: never; default: {default}",
            )
    health.add_argument(
        "--automatic-maintenance-on",
        metavar="error|warning|off",
        help="health, or worse, with which the worker goes into maintenance by itself; default: off, and such a"
        " maintenance that is remembered ends",
    )
    health.add_argument(
        "--automatic-maintenance-exit",
        metavar="warning|info|off",
        help="health, or better, with which such a maintenance ends by itself; one that a person began or ended is"
        " respected; default: off, a person must end it",
    )
    telemetry = start.add_argument_group("telemetry (goes to the server, or where OTEL_EXPORTER_OTLP_ENDPOINT says)")
    telemetry.add_argument("--outbox-size", metavar="MIB", help="on disk while it cannot be sent; default: 64")
    own = start.add_argument_group("the daemon's log")
    own.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error; default: info")
    own.add_argument("--log-format", metavar="auto|text|json", help="auto, the default: text on a terminal, else JSON")
    start.add_argument("--config", type=Path, metavar="FILE", help="TOML file with any of these options")


def main(arguments: list[str] | None = None) -> None:
    """Run the command; exits."""
    given: dict[str, Any] = vars(parser().parse_args(arguments))
    command = given.pop("command")
    try:
        code = _administrate(command, given) if command in _LOCAL else _start(given)
    except BadSetting as problem:
        print(f"edge-worker: {problem}", file=sys.stderr)  # noqa: T201
        code = BAD_CONFIGURATION
    sys.stdout.flush()
    sys.stderr.flush()
    # A call that hangs in a dead network, or an exporter, must not hold the exit: all that matters is done.
    os._exit(code)


def _start(flags: dict[str, Any]) -> int:
    from edge_worker import daemonlog, settings
    from edge_worker.logexport import LogExport

    chosen = settings.load(flags, flags.pop("config", None))
    # It keeps what is said until it can be sent.
    export = LogExport()
    daemonlog.configure(chosen.log_level, chosen.log_format, export)
    from edge_worker.facts import UserFacts
    from edge_worker.host import TaskInterpreter

    # They start while the rest is imported.
    interpreter = TaskInterpreter(chosen.task_python)
    users = UserFacts(chosen.facts_function) if chosen.facts_function else None
    from edge_worker.daemon import run

    try:
        return _run(run, chosen, interpreter, users, export)
    finally:
        if users is not None:
            users.close()


def _run(run: Any, chosen: Settings, interpreter: TaskInterpreter, users: UserFacts | None, export: LogExport) -> int:
    import asyncio

    return asyncio.run(run(chosen, interpreter, users, export))  # type: ignore[no-any-return]


def _administrate(command: str, given: dict[str, Any]) -> int:
    from edge_worker.admin import ask
    from edge_worker.settings import state_dir

    request: dict[str, Any] = {"do": command}
    if command == "maintenance":
        request |= {"on": given["switch"] == "on", "comment": given["comment"]}
    answer = ask(state_dir(given["state_dir"], given["config"]), request)
    if command == "status":
        print(json.dumps(answer, indent=2))  # noqa: T201
    else:
        print(f"{answer['name']}: {answer['state']}, {len(answer['jobs'])} jobs")  # noqa: T201
    return 0
