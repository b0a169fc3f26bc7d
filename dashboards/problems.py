"""What is wrong, in words: a table of sentences, each of which leads to where to look."""

from __future__ import annotations

from dashboards import links, thresholds
from dashboards.alert import duration
from dashboards.panels import column, grid, rows
from dashboards.prometheus import heartbeat_age, in_state, increase, latest, scraped, series, stale, state_from
from dashboards.sdk import models, table
from dashboards.variables import TEAM
from edge_otel.telemetry import names

SILENT = thresholds.HEARTBEAT_STALE.value
"""Intervals without a heartbeat after which a worker is called gone, though the scheduler may not have said so yet."""

_OPEN = links.to(
    "${__data.fields.look}",
    worker="${__data.fields.worker:percentencode}",
    queue="${__data.fields.queue:percentencode}",
)


def gone() -> str:
    """Return the workers that are gone and were not asked to go, by worker and team."""
    silent = f"{stale(SILENT, **TEAM)} and on (worker, team) {state_from(0, 10, **TEAM)}"
    return f"{in_state('unknown', **TEAM)} or ({silent})"


def deserted(**where: str) -> str:
    """Return the queues that have waiting jobs, and no worker that takes them."""
    waiting = latest(names.JOBS, "queue", "team", **TEAM, **where, state="=queued")
    workers = latest(names.QUEUE_WORKERS, "queue", "team", **TEAM)
    return f"{waiting} > 0 and on (queue, team) {workers} == 0"


def failing() -> str:
    """Return the share of jobs that failed, of queues where it is high."""
    limit = thresholds.FAILURE_RATIO_HIGH
    ended = {"window": duration(limit.window)}
    every = increase(names.JOBS_FINISHED, "queue", **ended)
    failed = increase(names.JOBS_FINISHED, "queue", **ended, outcome="=failed")
    return f"({failed} > {limit.least:g}) / {every} > {limit.value:g}"


def unread() -> str:
    """Return the API servers that Prometheus cannot read."""
    return f"({scraped()}) == 0"


def absent() -> str:
    """Return 1 where there are no metrics of the fleet at all."""
    return f"absent({series(names.SNAPSHOT_AGE)})"


def old() -> str:
    """Return how old the metrics of the fleet are, where every server's are too old."""
    return f"min({series(names.SNAPSHOT_AGE)}) > {thresholds.FLEET_SNAPSHOT_STALE.value:g}"


def told(problem: str, what: str, subject: str, look: str) -> str:
    """Return the problem with its sentence as label ``what``, in which $1 is the subject, and a dashboard's uid."""
    sentence = f'label_replace({problem}, "what", "{what}", "{subject}", "(.*)")'
    return f'label_replace({sentence}, "look", "{look}", "", "")'


PROBLEMS = (
    told(gone(), "Worker $1 is gone, and nobody asked it to go.", "worker", links.WORKER),
    told(deserted(), "Jobs wait in queue $1, and no worker takes them.", "queue", links.JOBS),
    told(
        failing(),
        f"More than {thresholds.FAILURE_RATIO_HIGH.value:.0%} of the jobs of queue $1 fail.",
        "queue",
        links.JOBS,
    ),
    told(unread(), "Prometheus cannot read the Edge API at $1.", "instance", links.TRANSPORT),
    told(absent(), "There are no metrics of the fleet: no Edge API answers Prometheus.", "", links.TRANSPORT),
    told(old(), "The Edge API cannot read the fleet: its database does not answer.", "", links.TRANSPORT),
)


def panel(width: int, height: int) -> table.Panel:
    """Return the table."""
    about = (
        "One sentence for each thing that is wrong now; click it for the dashboard that shows it. Looked for: workers"
        " that are gone though nobody asked them to go, queues whose jobs no worker takes, queues whose jobs fail, API"
        " servers that Prometheus cannot read, and metrics that are absent or old."
    )
    made = grid("What is wrong", about, *map(rows, PROBLEMS), width=width, height=height)
    made = made.no_value("Nothing is wrong that is asked about here.").filterable(False).show_header(False)
    made = made.override_by_regexp("/^(?!what$)/", [models.DynamicConfigValue("custom.hidden", True)])
    red = {"mode": "fixed", "fixedColor": "red"}
    cell = {"type": "color-text", "wrapText": True}
    look = [links.cell_link("Look there", _OPEN)]
    return column(made, "what", color=red, cellOptions=cell, links=look)


def silence(**where: str) -> str:
    """Return the age of each worker's last heartbeat in intervals that it was told: about 1 is well."""
    told_interval = latest(names.WORKER_HEARTBEAT_INTERVAL, "worker", "team", **where)
    return f"{heartbeat_age(**where)} / {told_interval}"
