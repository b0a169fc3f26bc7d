"""The dashboard of queues and jobs: what waits, for how long, who takes it, and what becomes of it."""

from __future__ import annotations

from dashboards import links, problems, variables
from dashboards.board import Rows, board
from dashboards.panels import MANY, column, graph, grid, limits, line, log_lines, now, number, query, rows, traces
from dashboards.prometheus import RANGE, increase, label, latest, quantile, rate, total
from dashboards.sdk import logs, stat, table, timeseries
from dashboards.thresholds import FAILURE_RATIO_HIGH
from dashboards.variables import QUEUE, TEAM
from edge_otel.telemetry import names

TASKS = "airflow-task"
"""``service.name`` of the tasks' log records."""
BAD = "failed|killed|lost"
"""Of names.JOB_OUTCOME: what somebody wants to look at."""
PER_SECOND = "ops"


def text() -> str:
    """Return the dashboard's JSON."""
    about = "The queues of the edge executor: jobs that wait and run, how long, and what becomes of them."
    return board(links.JOBS, "Edge queues and jobs", about, [variables.team(), variables.queue()], layout())


def layout() -> Rows:
    """Return the rows of panels."""
    return [
        ("At a glance", [*glance(), queues()]),
        ("Depth", [depth(), oldest(), takers()]),
        ("Durations", [waits(), runs(), slots()]),
        ("Outcomes", [outcomes(), failures(), returned()]),
        ("Failed jobs", [failed_traces(), error_lines()]),
    ]


def glance() -> list[stat.Panel]:
    """Return the numbers at the top."""
    waiting, running = (total(names.JOBS, **TEAM, **QUEUE, state=state) for state in ("=queued", "=~assigned|running"))
    deserted = f"count({problems.deserted(**QUEUE)}) or vector(0)"
    lost = total(names.JOBS, **TEAM, **QUEUE, state="=lost")
    ended = increase(names.JOBS_FINISHED, window=RANGE, **QUEUE)
    failed = increase(names.JOBS_FINISHED, window=RANGE, **QUEUE, outcome="!=success")
    ratio = f"{failed} / ({ended} > 0)"
    oldest_age = f"max({latest(names.QUEUE_OLDEST, 'queue', **TEAM, **QUEUE)})"
    warned = limits((None, "green"), (1, "red"))
    return [
        number("Waiting", "Jobs that are queued.", MANY, now(waiting)),
        number("Held", "Jobs that workers were offered or run.", MANY, now(running)),
        number("Oldest waiting job", "How long the oldest queued job has waited.", "s", now(oldest_age)),
        number("Queues without workers", "Jobs wait, no worker takes them.", MANY, now(deserted)).thresholds(warned),
        number("Failed", "Share of the jobs that ended in the time range.", "percentunit", now(ratio)),
        number("Lost", "Jobs in the table whose worker is gone.", MANY, now(lost)).thresholds(warned),
    ]


def queues() -> table.Panel:
    """Return a row for each queue."""
    about = (
        "Each queue as it is now. Click a queue for that one alone. A queue with jobs and no"
        " workers waits for somebody to start one, or to end a maintenance."
    )
    fleet = (names.QUEUE_OLDEST, names.QUEUE_WORKERS, names.QUEUE_SLOTS_USED, names.QUEUE_SLOTS)
    panel = grid(
        "Queues",
        about,
        rows(latest(names.JOBS, "queue", "team", **TEAM, **QUEUE, state="=queued")),
        *(rows(latest(metric, "queue", "team", **TEAM, **QUEUE)) for metric in fleet),
        height=7,
    )
    panel = column(panel, "queue", links=[links.cell_link("This queue", links.TO_QUEUE)])
    panel = column(panel, "Value #A", "waiting")
    panel = column(panel, "Value #B", "oldest", unit="s")
    panel = column(panel, "Value #C", "workers")
    panel = column(panel, "Value #D", "slots used")
    return column(panel, "Value #E", "slots")


def depth() -> timeseries.Panel:
    """Return how many jobs wait and run."""
    about = "Jobs in the table that are not over, by state: queued, assigned (offered to a worker), running."
    by_state = total(names.JOBS, "state", **TEAM, **QUEUE, state="=~queued|assigned|running")
    return graph("Jobs", about, MANY, query(by_state, "{{state}}"), stacked=True)


def oldest() -> timeseries.Panel:
    """Return how long jobs have waited."""
    about = "Age of the oldest queued job of each queue; 0 for none. This is what an autoscaler should look at."
    return _by_queue("Oldest waiting job", about, "s", latest(names.QUEUE_OLDEST, "queue", **TEAM, **QUEUE))


def takers() -> timeseries.Panel:
    """Return how many workers take jobs."""
    about = "Workers that take jobs of the queue. Those in maintenance, leaving or gone do not count."
    return _by_queue("Workers", about, MANY, total(names.QUEUE_WORKERS, "queue", **TEAM, **QUEUE))


def waits() -> timeseries.Panel:
    """Return how long jobs waited."""
    about = (
        "From queued to assigned: half of the jobs, and 95 of 100, waited at most this long. A dot is one job: click it"
        " for its trace."
    )
    return _quantiles("Wait", about, names.JOB_QUEUE_SECONDS)


def runs() -> timeseries.Panel:
    """Return how long jobs ran."""
    about = "From the confirmed offer to the reported end. A dot is one job: click it for its trace."
    return _quantiles("Run", about, names.JOB_RUN_SECONDS)


def slots() -> timeseries.Panel:
    """Return how full the queues are."""
    about = "Slots in use, as a share of those of the workers that take jobs of the queue. At 100 % jobs wait."
    used, there = (total(metric, "queue", **TEAM, **QUEUE) for metric in (names.QUEUE_SLOTS_USED, names.QUEUE_SLOTS))
    return _by_queue("Slots in use", about, "percentunit", f"{used} / ({there} > 0)")


def outcomes() -> timeseries.Panel:
    """Return what became of jobs."""
    about = "Ends of jobs that workers reported, by outcome, and offers to workers."
    ended = rate(names.JOBS_FINISHED, "outcome", **QUEUE)
    return graph(
        "Jobs offered and ended",
        about,
        PER_SECOND,
        query(rate(names.JOBS_ASSIGNED, **QUEUE), "offered"),
        query(ended, "{{outcome}}"),
    )


def failures() -> timeseries.Panel:
    """Return the share of jobs that fail."""
    limit = FAILURE_RATIO_HIGH.value
    about = f"Share of the ended jobs that failed, by queue. From {limit:.0%} on somebody is told."
    failed, ended = (rate(names.JOBS_FINISHED, "queue", **QUEUE, **how) for how in ({"outcome": "!=success"}, {}))
    panel = _by_queue("Failure ratio", about, "percentunit", f"{failed} / ({ended} > 0)")
    return panel.thresholds(limits((None, "green"), (limit, "red"))).thresholds_style(line())


def returned() -> timeseries.Panel:
    """Return what went back to the queue, or was reported too late."""
    about = (
        "Offers that went back to the queue, by reason, and stale reports: of jobs that are not the worker's any more,"
        " as after an outage of its site."
    )
    return graph(
        "Requeued and stale",
        about,
        PER_SECOND,
        query(rate(names.JOBS_REQUEUED, "reason", **QUEUE), "requeued: {{reason}}"),
        query(rate(names.JOBS_STALE, **QUEUE), "stale"),
    )


def failed_traces() -> table.Panel:
    """Return the traces of jobs that failed."""
    about = "The latest traces with a job of the queue that failed, was killed or lost; a span leads to its logs."
    return traces(
        "Traces of failed jobs", about, f'{{ span.{names.JOB_OUTCOME} =~ "{BAD}" && span.{names.QUEUE} =~ "$queue" }}'
    )


def error_lines() -> logs.Panel:
    """Return the lines of task logs that tell of errors."""
    about = "Lines of tasks' logs of level ERROR or CRITICAL. Open a line for its dag, task, run and trace."
    chosen = f'{label(names.QUEUE)}=~"$queue" | severity_text=~"ERROR|CRITICAL"'
    return log_lines("Errors in task logs", about, f'{{{label(names.SERVICE_NAME)}="{TASKS}"}} | {chosen}')


def _by_queue(title: str, about: str, unit: str, expr: str) -> timeseries.Panel:
    panel = graph(title, about, unit, query(expr, "{{queue}}"))
    return panel.data_links([links.data_link("This queue", links.SERIES_TO_QUEUE)])


def _quantiles(title: str, about: str, metric: names.Metric) -> timeseries.Panel:
    half, most = (quantile(share, metric, "queue", **QUEUE) for share in (0.5, 0.95))
    return graph(title, about, "s", query(half, "{{queue}} 50 %"), query(most, "{{queue}} 95 %", exemplar=True))
