"""The command line of ``edge-worker``."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_otel import __version__

EXIT_CODES = """\
exit codes of start:
  0  left in order: drained, or stopped
  1  a defect ended it; its jobs go on, and the next start adopts them
  2  bad configuration, or another daemon uses the state folder
  3  refused by the server at the start: token, version or name
  4  replaced by another daemon of this name
  5  handed over: its jobs go on, for the next start to adopt
exit codes of the other commands:
  0  done
  1  status --check: not as it should be
  2  bad arguments, no daemon answers, or its answer cannot be printed
"""

SIGNALS = """\
signals:
  SIGTERM, SIGINT  drain; a second one stops the jobs, too
  SIGHUP           read settings again, as `edge-worker reload`
  SIGUSR1          hand over, as `edge-worker handover`
"""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(
        prog="edge-worker",
        description="Run Apache Airflow tasks at a remote site, for a central Airflow with edge-otel.",
        epilog="Every option of start is also read from EDGE_WORKER_<OPTION> and from the file of --config.\n\n"
        f"{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"edge-worker {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    start = commands.add_parser(
        "start",
        help="run the daemon",
        description="Run the daemon in the foreground.",
        epilog="Strength: options, environment EDGE_WORKER_..., the TOML file, what the server sent, defaults.\n\n"
        f"{SIGNALS}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    _add_start_options(start)
    status = _local(commands, "status", "show what the daemon of a state folder does, and how it is")
    status.add_argument("--output", choices=["text", "json"], default="text", help="default: text")
    status.add_argument(
        "--check",
        choices=["live", "ready"],
        help="show only whether it lives, or takes jobs, and why not; exit code 0 or 1",
    )
    _local(commands, "reload", "read the daemon's settings, token and environment of tasks again")
    for name, text in (
        ("drain", "take no more jobs and leave when the present ones have ended"),
        ("stop", "stop the jobs and leave"),
        ("handover", "leave at once; the jobs go on, and the next daemon adopts them: for an upgrade"),
    ):
        command = _local(commands, name, text)
        command.add_argument("--wait", action="store_true", help="return when the daemon has left")
    _add_maintenance(commands)
    return top


_Commands = argparse._SubParsersAction


def _local(commands: _Commands[argparse.ArgumentParser], name: str, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text.capitalize() + ".")
    command.add_argument("--state-dir", type=Path, help="folder of the daemon")
    command.add_argument("--config", type=Path, help="TOML file that names the folder")
    return command


def _add_maintenance(commands: _Commands[argparse.ArgumentParser]) -> None:
    maintenance = commands.add_parser(
        "maintenance",
        help="take no jobs for a while",
        description="Take no jobs until it is ended; remembered over restarts.",
    )
    switches = maintenance.add_subparsers(dest="switch", required=True, metavar="on|off|comment")
    on = _local(switches, "on", "take no jobs; those that run go on")
    on.add_argument("--comment", dest="text", default="", metavar="TEXT", help="why, for those who look centrally")
    on.add_argument("--wait", action="store_true", help="return when its jobs are over, or the maintenance is")
    _local(switches, "off", "take jobs again")
    comment = _local(switches, "comment", "say anew why no jobs are taken")
    comment.add_argument("text", metavar="TEXT")


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
    tasks.add_argument(
        "--disconnect-policy",
        nargs="+",
        metavar=("keep|stop-after", "DURATION"),
        help="keep, the default: jobs go on while no server answers; stop-after 30m (or 90s, 2h, 1d): they are stopped"
        " then, and the scheduler need not wait longer to run them elsewhere",
    )
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
    health.add_argument(
        "--health-port",
        metavar="PORT",
        help="on 127.0.0.1, for GET /livez, /readyz, /status (JSON) and /metrics (Prometheus); 0: any free port;"
        " default: none",
    )
    telemetry = start.add_argument_group("telemetry (goes to the server, or where OTEL_EXPORTER_OTLP_ENDPOINT says)")
    telemetry.add_argument("--outbox-size", metavar="MIB", help="on disk while it cannot be sent; default: 64")
    own = start.add_argument_group("the daemon's log")
    own.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error; default: info")
    own.add_argument("--log-format", metavar="auto|text|json", help="auto, the default: text on a terminal, else JSON")
    own.add_argument(
        "--log-lines",
        metavar="N",
        help="newest lines, from info on, that a heartbeat takes along to be seen centrally; default, and most: 50;"
        " 0: none",
    )
    start.add_argument("--config", type=Path, metavar="FILE", help="TOML file with any of these options")
