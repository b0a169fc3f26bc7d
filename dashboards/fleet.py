"""The dashboard of the fleet: which workers there are, in which state, and what is wrong."""

from __future__ import annotations

from typing import TypeVar

from dashboards import links, problems, variables
from dashboards.board import Rows, board
from dashboards.panels import MANY, column, graph, grid, limits, line, now, number, query, rows, timeline
from dashboards.prometheus import heartbeat_age, latest, state_from, total
from dashboards.sdk import stat, statetimeline, table, timeseries
from dashboards.states import COLOURS, fixed, mappings
from dashboards.variables import TEAM, WORKER
from edge_otel.telemetry import names

Coloured = TypeVar("Coloured", stat.Panel, timeseries.Panel)
ALERTS = 'ALERTS{alertstate="firing",alertname=~"Edge.*"}'
"""Prometheus' own series of alerts; those of this project begin with Edge."""


def text() -> str:
    """Return the dashboard's JSON."""
    about = "The edge workers: their states, heartbeats, slots and versions, and what is wrong now."
    return board(links.FLEET, "Edge fleet", about, [variables.team(), variables.workers()], layout())


def layout() -> Rows:
    """Return the rows of panels."""
    return [
        ("At a glance", [problems.panel(14, 8), alerts(), by_state(), *glance()]),
        ("States", [states()]),
        ("Heartbeats and slots", [heartbeats(), slots(), count()]),
        ("Workers", [workers(), versions(), maintenance(), skew()]),
    ]


def alerts() -> table.Panel:
    """Return the alerts that fire."""
    about = (
        "Alerts of this project's rules that Prometheus says are firing, and since when. Notifications: Alertmanager."
    )
    since = f"1000 * max by (alertname, severity, worker, queue) (ALERTS_FOR_STATE and ignoring (alertstate) {ALERTS})"
    panel = grid("Firing alerts", about, rows(since), width=10, height=8).no_value("No alert fires.")
    panel = column(panel, "Value", "since", unit="dateTimeFromNow")
    panel = column(panel, "worker", links=[links.cell_link("Worker", links.TO_WORKER)])
    return column(panel, "queue", links=[links.cell_link("Queue", links.TO_QUEUE)])


def every_state() -> str:
    """Return the number of workers in each state that any is in."""
    return f"{total(names.WORKER_COUNT, 'state', **TEAM)} > 0"


def by_state() -> stat.Panel:
    """Return the number of workers in each state."""
    about = "Workers of the teams in each state. Grey: gone in order; red: gone, and nobody asked them to go."
    return coloured(number("Workers by state", about, MANY, now(every_state(), "{{state}}"), width=12))


def coloured(panel: Coloured) -> Coloured:
    """Return the panel with the colour of its state for each series."""
    for state in COLOURS:
        panel = panel.override_by_name(state, fixed(state))
    return panel


def glance() -> list[stat.Panel]:
    """Return the numbers beside it."""
    share = f"{of_takers(names.WORKER_SLOTS_USED)} / ({of_takers(names.WORKER_SLOTS)} > 0)"
    connected = total(names.WORKER_CONNECTED, **TEAM, **WORKER)
    return [
        number(
            "Slots in use",
            "Share of the slots of the workers that take jobs which jobs hold.",
            "percentunit",
            now(share),
            width=3,
        ),
        number(
            "Channels", "Workers that are there and talk over a channel; others poll.", MANY, now(connected), width=3
        ),
        number("Oldest heartbeat", "Of the workers that are not gone.", "s", now(f"max({present_age()})"), width=6),
    ]


def of_takers(metric: names.Metric) -> str:
    """Return the sum of a metric over the workers that take jobs."""
    every = latest(metric, "worker", "team", **TEAM, **WORKER)
    return f"sum({every} and on (worker, team) ({state_from(0, 10)}))"


def present_age() -> str:
    """Return the age of the last heartbeat of each worker that is not gone."""
    return f"{heartbeat_age(**TEAM, **WORKER)} and on (worker, team) ({state_from(0, 30)})"


def states() -> statetimeline.Panel:
    """Return the states over time."""
    about = (
        "The state of each worker over time. Green takes jobs, yellow is in maintenance, blue leaves, grey is gone in"
        " order, red was not asked to go. Click a worker for its own dashboard."
    )
    code = latest(names.WORKER_STATE_CODE, "worker", **TEAM, **WORKER)
    panel = timeline("State of each worker", about, query(code, "{{worker}}"), height=11)
    return panel.data_links([links.data_link("Worker", links.SERIES_TO_WORKER)])


def heartbeats() -> timeseries.Panel:
    """Return how long workers have been silent."""
    about = (
        "Age of the last heartbeat, in intervals that the worker was told: up to 1 is well. Workers that are gone are"
        f" left out; from {problems.SILENT:g} on, one that takes jobs is called gone."
    )
    age = f"{problems.silence(**TEAM, **WORKER)} and on (worker, team) ({state_from(0, 30)})"
    panel = graph("Heartbeat age in intervals", about, "none", query(age, "{{worker}}"))
    panel = panel.thresholds(limits((None, "green"), (problems.SILENT, "red"))).thresholds_style(line())
    return panel.data_links([links.data_link("Worker", links.SERIES_TO_WORKER)])


def slots() -> timeseries.Panel:
    """Return the slots there are and those in use."""
    about = "Slots of the workers that take jobs, and slots that assigned and running jobs hold."
    used = total(names.WORKER_SLOTS_USED, **TEAM, **WORKER)
    return graph("Slots", about, MANY, query(used, "used"), query(of_takers(names.WORKER_SLOTS), "there"))


def count() -> timeseries.Panel:
    """Return the workers by state over time."""
    about = "Workers in each state."
    panel = graph("Workers by state over time", about, MANY, query(every_state(), "{{state}}"), stacked=True)
    return coloured(panel)


def workers() -> table.Panel:
    """Return a row for each worker."""
    about = (
        "Each worker as it is now. Click its name for its own dashboard. Unsent: task log that the Edge API does not"
        " have yet. Clock: the worker's minus the server's."
    )
    panel = grid(
        "Workers",
        about,
        rows(latest(names.WORKER_STATE_CODE, "worker", "team", **TEAM, **WORKER)),
        rows(f"max by (worker) ({heartbeat_age(**TEAM, **WORKER)})"),
        rows(latest(names.WORKER_SLOTS_USED, "worker", **TEAM, **WORKER)),
        rows(latest(names.WORKER_SLOTS, "worker", **TEAM, **WORKER)),
        rows(latest(names.WORKER_LOG_BACKLOG, "worker", **WORKER)),
        rows(latest(names.WORKER_CLOCK_SKEW, "worker", **WORKER)),
        rows(latest(names.WORKER_INFO, "worker", "version", "os", **WORKER)),
        height=11,
    )
    panel = column(panel, "worker", links=[links.cell_link("Worker", links.TO_WORKER)])
    panel = column(panel, "Value #A", "state", mappings=[mappings()], cellOptions={"type": "color-text"})
    panel = column(panel, "Value #B", "last heard", unit="s")
    panel = column(panel, "Value #C", "slots used")
    panel = column(panel, "Value #D", "slots")
    panel = column(panel, "Value #E", "unsent log", unit="bytes")
    panel = column(panel, "Value #F", "clock", unit="s", decimals=1)
    return column(panel, "Value #G", hidden=True)


def versions() -> table.Panel:
    """Return how many workers run which versions."""
    about = (
        "Workers that are not gone, by version of the worker, of Airflow and of Python. More than one line: an upgrade"
        " is under way."
    )
    by = ("version", "airflow_version", "python_version")
    here = f"{latest(names.WORKER_INFO, 'worker', *by, **WORKER)} and on (worker) ({state_from(0, 30, **TEAM)})"
    panel = grid("Versions", about, rows(f"count by ({', '.join(by)}) ({here})"), width=8, height=8)
    return column(panel, "Value", "workers")


def maintenance() -> table.Panel:
    """Return who is in maintenance."""
    about = "Workers in maintenance, and who wanted it: admin (centrally), local (at the site), automatic (its health)."
    panel = grid(
        "Maintenance",
        about,
        rows(latest(names.WORKER_MAINTENANCE, "worker", "origin", **TEAM, **WORKER)),
        width=8,
        height=8,
    )
    panel = column(panel, "worker", links=[links.cell_link("Worker", links.TO_WORKER)])
    return column(panel, "Value", hidden=True).no_value("No worker is in maintenance.")


def skew() -> timeseries.Panel:
    """Return how wrong the clocks are."""
    about = "The worker's clock minus the server's, as the worker measured it. Its traces are as wrong."
    panel = graph("Clock skew", about, "s", query(latest(names.WORKER_CLOCK_SKEW, "worker", **WORKER), "{{worker}}"))
    return panel.data_links([links.data_link("Worker", links.SERIES_TO_WORKER)])
