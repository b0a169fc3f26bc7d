"""The dashboard of what lies between workers and Airflow: the Edge API, channels, logs, gateway and scrapes."""

from __future__ import annotations

from dashboards import links, problems
from dashboards.board import Rows, board
from dashboards.jobs import PER_SECOND
from dashboards.panels import MANY, column, graph, grid, limits, now, number, query, rows, traces
from dashboards.prometheus import latest, quantile, rate, scraped, series
from dashboards.sdk import stat, table, timeseries
from dashboards.thresholds import FLEET_SNAPSHOT_STALE
from edge_otel.telemetry import names


def text() -> str:
    """Return the dashboard's JSON."""
    about = (
        "The way between workers and Airflow: the Edge API's requests, channels, logs and telemetry, and its scrapes."
    )
    return board(links.TRANSPORT, "Edge transport", about, [], layout())


def layout() -> Rows:
    """Return the rows of panels."""
    return [
        ("At a glance", glance()),
        ("Requests", [requests(), errors(), latency()]),
        ("Channels", [connections(), messages(), disconnects(), heartbeats()]),
        ("Task logs", [log_bytes(), log_trouble(), log_sinks()]),
        ("Telemetry of workers", [forwarded(), rejected()]),
        ("Scrapes", [targets(), scrape_time(), snapshot()]),
        ("Traces", [failed()]),
    ]


def glance() -> list[stat.Panel]:
    """Return the numbers at the top."""
    every = rate(names.REQUEST_SECONDS, part="_count")
    failed_share = f"({rate(names.REQUEST_SECONDS, part='_count', status='=~5..')} or vector(0)) / {every}"
    slowest = quantile(0.95, names.REQUEST_SECONDS)
    away = limits((None, "green"), (1, "red"))
    old = limits((None, "green"), (FLEET_SNAPSHOT_STALE.value, "red"))
    age = f"max({series(names.SNAPSHOT_AGE)})"
    unread = f"count({problems.unread()}) or vector(0)"
    open_now = f"sum({series(names.CHANNEL_CONNECTIONS)})"
    return [
        number("API servers read", "Edge API servers that Prometheus can read.", MANY, now(f"sum({scraped()})")),
        number("API servers away", "Those that it read within a day and cannot now.", MANY, now(unread)).thresholds(
            away
        ),
        number(
            "Age of the fleet's metrics", "Of the oldest; the database answers while it is small.", "s", now(age)
        ).thresholds(old),
        number("Channels open", "Over all Edge API servers.", MANY, now(open_now)),
        number("Server errors", "Share of requests that were answered with 5xx.", "percentunit", now(failed_share)),
        number("Latency, 95 %", "95 of 100 requests were answered within this time.", "s", now(slowest)),
    ]


def requests() -> timeseries.Panel:
    """Return how much is asked."""
    by_route = rate(names.REQUEST_SECONDS, "route", "method", part="_count")
    about = "Requests to the Edge API by route."
    return graph("Requests", about, "reqps", query(by_route, "{{method}} {{route}}"))


def errors() -> timeseries.Panel:
    """Return what was refused or failed."""
    about = (
        "Requests that were answered with 4xx or 5xx, by route and status. 416 is a gap in a log, and is healed; 401"
        " and 403 are about tokens."
    )
    by_status = rate(names.REQUEST_SECONDS, "route", "status", part="_count", status="=~[45]..")
    return graph("Refused and failed requests", about, "reqps", query(by_status, "{{status}} {{route}}"))


def latency() -> timeseries.Panel:
    """Return how long answers take."""
    most = quantile(0.95, names.REQUEST_SECONDS, "route")
    about = "95 of 100 requests were answered within this time, by route. Those of logs take what a site's link takes."
    return graph("Latency, 95 %", about, "s", query(most, "{{route}}"))


def connections() -> timeseries.Panel:
    """Return the open channels."""
    about = "Open channels of each Edge API server. After a restart the workers come back within their reconnect delay."
    return graph(
        "Channels open", about, MANY, query(latest(names.CHANNEL_CONNECTIONS, "instance"), "{{instance}}"), width=6
    )


def messages() -> timeseries.Panel:
    """Return what goes over the channels."""
    by_type = rate(names.CHANNEL_MESSAGES, "direction", "type")
    about = "Messages on channels by direction and type; unknown and invalid ones are passed over."
    return graph("Messages", about, PER_SECOND, query(by_type, "{{direction}} {{type}}"), width=6)


def disconnects() -> timeseries.Panel:
    """Return why channels ended."""
    about = (
        "Channels that ended: the worker left, was sent_away, refused or too slow; the channel was broken, or failed."
    )
    return graph(
        "Channels ended", about, PER_SECOND, query(rate(names.CHANNEL_DISCONNECTS, "reason"), "{{reason}}"), width=6
    )


def heartbeats() -> timeseries.Panel:
    """Return the heartbeats that are heard."""
    by_transport = rate(names.HEARTBEATS, "transport")
    return graph(
        "Heartbeats", "Heartbeats heard, by how they came.", PER_SECOND, query(by_transport, "{{transport}}"), width=6
    )


def log_bytes() -> timeseries.Panel:
    """Return how much log arrives."""
    return graph(
        "Log stored", "Bytes of task log that were stored.", "Bps", query(rate(names.LOG_BYTES_STORED), "stored")
    )


def log_trouble() -> timeseries.Panel:
    """Return gaps in logs."""
    about = "Pieces of log that began beyond what is stored; the worker is told where to go on."
    return graph("Gaps in logs", about, PER_SECOND, query(rate(names.LOG_GAPS), "gaps"))


def log_sinks() -> timeseries.Panel:
    """Return what becomes of logs."""
    about = "Uploads to Airflow's remote log, and lines that went to the collector as log records, by outcome."
    return graph(
        "Uploads and log records",
        about,
        PER_SECOND,
        query(rate(names.LOG_UPLOADS, "outcome"), "uploads {{outcome}}"),
        query(rate(names.LOG_RECORDS, "outcome"), "records {{outcome}}"),
    )


def forwarded() -> timeseries.Panel:
    """Return the telemetry that the collector took."""
    about = "Telemetry of workers that the collector took, before compression."
    return graph("Forwarded", about, "Bps", query(rate(names.OTLP_FORWARDED, "signal"), "{{signal}}"), width=12)


def rejected() -> timeseries.Panel:
    """Return the telemetry that was not passed on."""
    about = "Telemetry that was not passed on, by reason. What waits at the site is sent again."
    by_reason = rate(names.OTLP_REJECTED, "signal", "reason")
    return graph("Rejected", about, PER_SECOND, query(by_reason, "{{signal}} {{reason}}"), width=12)


def targets() -> table.Panel:
    """Return what Prometheus reads."""
    about = "Scrape targets of the Edge API: 1 while Prometheus can read them."
    return column(grid("Scrape targets", about, rows(scraped()), width=8, height=8), "Value", "up")


def scrape_time() -> timeseries.Panel:
    """Return how long scrapes take."""
    about = "How long a scrape of the Edge API takes; Prometheus gives up after its scrape_timeout, 10 s by default."
    taken = f"scrape_duration_seconds and on (job, instance) ({scraped()})"
    return graph("Scrape duration", about, "s", query(taken, "{{instance}}"))


def snapshot() -> timeseries.Panel:
    """Return how old the fleet's metrics are."""
    about = "How long ago each Edge API server read the fleet from its database. It grows while that does not answer."
    return graph(
        "Age of the fleet's metrics", about, "s", query(latest(names.SNAPSHOT_AGE, "instance"), "{{instance}}")
    )


def failed() -> table.Panel:
    """Return traces of heartbeats and logs that failed."""
    about = "The latest traces of heartbeats and of pieces of log that failed, of all workers."
    spans = " || ".join(f'name = "{span.named()}"' for span in (names.HEARTBEAT, names.SHIP_LOG))
    return traces("Failed heartbeats and log requests", about, f"{{ status = error && ({spans}) }}")
