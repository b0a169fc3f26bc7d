"""The dashboard of one worker: its state, its host, its daemon, what it has not delivered, its logs and its traces."""

from __future__ import annotations

from dashboards import daemon, host, links, problems, variables
from dashboards.board import Rows, board
from dashboards.jobs import BAD, TASKS
from dashboards.panels import MANY, column, graph, grid, limits, log_lines, now, number, query, rows, timeline, traces
from dashboards.prometheus import heartbeat_age, label, latest
from dashboards.sdk import logs, models, stat, statetimeline, table, timeseries
from dashboards.states import mappings
from dashboards.variables import ONE
from edge_otel.telemetry import names


def text() -> str:
    """Return the dashboard's JSON."""
    about = "One edge worker: its state, heartbeats, host, daemon, undelivered logs and telemetry, logs and traces."
    return board(links.WORKER, "Edge worker", about, [variables.team(), variables.worker()], layout())


def layout() -> Rows:
    """Return the rows of panels."""
    return [
        ("At a glance", [*glance(), info(), parked(), states(), silence(), slots(), facts()]),
        ("Host", host.panels()),
        ("Daemon and link", daemon.panels()),
        ("Logs and traces", [daemon_log(), error_traces(), task_log()]),
    ]


def glance() -> list[stat.Panel]:
    """Return the numbers at the top."""
    state = number("State", "The state now.", "none", now(latest(names.WORKER_STATE_CODE, **ONE)))
    talks = models.ValueMap(
        {"0": models.ValueMappingResult(text="polling, or gone"), "1": models.ValueMappingResult(text="channel")}
    )
    share = f"{latest(names.WORKER_SLOTS_USED, **ONE)} / ({latest(names.WORKER_SLOTS, **ONE)} > 0)"
    link = number("Link", "How it talks to the Edge API.", "none", now(latest(names.WORKER_CONNECTED, **ONE)))
    age = f"max({heartbeat_age(**ONE)})"
    late = limits((None, "green"), (1.5, "orange"), (problems.SILENT, "red"))
    beat = number("Last heartbeat", "How long ago it was heard.", "s", now(age))
    intervals = number(
        "In intervals",
        "The same, in intervals that it was told: up to 1 is well.",
        "none",
        now(problems.silence(**ONE)),
    )
    skew = number("Clock", "Its clock minus the server's.", "s", now(latest(names.WORKER_CLOCK_SKEW, **ONE)))
    return [
        state.mappings([mappings()]),
        link.mappings([talks]),
        beat,
        intervals.decimals(1).thresholds(late),
        number("Slots in use", "Share of its slots that jobs hold.", "percentunit", now(share)),
        skew.decimals(1),
    ]


def info() -> table.Panel:
    """Return its versions."""
    about = "Versions of the worker, of Airflow and of Python, and its operating system."
    panel = grid(
        "Versions", about, rows(latest(names.WORKER_INFO, *names.WORKER_INFO.labels, **ONE)), width=14, height=4
    )
    return column(panel, "Value", hidden=True)


def parked() -> table.Panel:
    """Return who put it in maintenance."""
    about = "Who wanted its maintenance: admin (centrally), local (at the site), automatic (its health)."
    panel = grid("Maintenance", about, rows(latest(names.WORKER_MAINTENANCE, "origin", **ONE)), width=10, height=4)
    return column(panel, "Value", hidden=True).no_value("It is not in maintenance.")


def states() -> statetimeline.Panel:
    """Return its states over time."""
    about = (
        "Its state over time. Green takes jobs, yellow is in maintenance, blue leaves, grey is gone in order, red was"
        " not asked to go."
    )
    return timeline("State", about, query(latest(names.WORKER_STATE_CODE, "worker", **ONE), "{{worker}}"), height=4)


def silence() -> timeseries.Panel:
    """Return the age of its heartbeats."""
    about = "Age of the last heartbeat, and the interval that it was told."
    told = latest(names.WORKER_HEARTBEAT_INTERVAL, **ONE)
    return graph("Heartbeat age", about, "s", query(f"max({heartbeat_age(**ONE)})", "age"), query(told, "interval"))


def slots() -> timeseries.Panel:
    """Return its slots."""
    about = "Its slots, and those that its assigned and running jobs hold."
    used, there = (latest(metric, **ONE) for metric in (names.WORKER_SLOTS_USED, names.WORKER_SLOTS))
    return graph("Slots", about, MANY, query(used, "used"), query(there, "there"))


def facts() -> timeseries.Panel:
    """Return the numbers of the user's own function."""
    about = "Numbers that the function named by --facts-function returned; none where there is no such function."
    return graph("Facts", about, MANY, query(latest(names.WORKER_FACT, "fact", **ONE), "{{fact}}"))


def daemon_log() -> logs.Panel:
    """Return what the daemon said."""
    about = "The daemon's own log. A line that was written in a span leads to its trace."
    return log_lines("Log of the daemon", about, _lines(names.PROCESS.service))


def error_traces() -> table.Panel:
    """Return traces of the worker in which something failed."""
    about = "The latest traces with a span of this worker that failed: jobs, launches, heartbeats, pieces of log."
    failed = f'status = error || span.{names.JOB_OUTCOME} =~ "{BAD}"'
    return traces("Traces with errors", about, f'{{ resource.{names.WORKER_NAME} = "$worker" && ({failed}) }}')


def task_log() -> logs.Panel:
    """Return what the tasks on the worker said."""
    about = "Logs of the tasks that ran on it. Open a line for its dag, task, run and trace."
    return log_lines("Logs of its tasks", about, _lines(TASKS))


def _lines(service: str) -> str:
    return f'{{{label(names.SERVICE_NAME)}="{service}"}} | {label(names.WORKER_NAME)}="$worker"'
