"""The panels of a worker's daemon: its use of the host, its link to the Edge API, and what it could not send yet."""

from __future__ import annotations

from dashboards.panels import MANY, graph, query
from dashboards.prometheus import increase, label, latest, quantile, rate
from dashboards.sdk import timeseries
from dashboards.variables import ONE, OTLP_WORKER
from edge_otel.telemetry import names


def panels() -> list[timeseries.Panel]:
    """Return them."""
    return [round_trip(), reconnects(), launches(), backlog(), dropped(), processes(), cpu(), memory(), handles()]


def round_trip() -> timeseries.Panel:
    """Return how long heartbeats take."""
    about = "From a heartbeat to its answer, as the worker measures it: half of them, and 95 of 100, within this time."
    result = label(names.RESULT)
    queries = [
        query(quantile(share, names.HEARTBEAT_SECONDS, result, **OTLP_WORKER), f"{{{{{result}}}}} {share:.0%}")
        for share in (0.5, 0.95)
    ]
    return graph("Heartbeat round trip", about, "s", *queries)


def reconnects() -> timeseries.Panel:
    """Return how often the link was lost."""
    about = "Registrations after the first, and heartbeats that failed: the link was lost, or the Edge API was away."
    failed = increase(names.HEARTBEAT_SECONDS, part="_count", **OTLP_WORKER, **{label(names.RESULT): "=failed"})
    again = increase(names.RECONNECTS, **OTLP_WORKER)
    return graph("Link lost", about, MANY, query(again, "reconnects"), query(failed, "failed heartbeats"))


def launches() -> timeseries.Panel:
    """Return how long starting a job takes."""
    about = "From the order to the running process: 95 of 100 within this time, by how it was started and how it ended."
    mode, result = label(names.JOB_LAUNCH_MODE), label(names.RESULT)
    most = quantile(0.95, names.LAUNCH_SECONDS, mode, result, **OTLP_WORKER)
    return graph("Launch of jobs, 95 %", about, "s", query(most, f"{{{{{mode}}}}} {{{{{result}}}}}"))


def backlog() -> timeseries.Panel:
    """Return what waits at the site."""
    about = "Task log and telemetry at the site that are not delivered yet, as heartbeats tell. They should fall to 0."
    log, telemetry = (latest(metric, **ONE) for metric in (names.WORKER_LOG_BACKLOG, names.WORKER_OUTBOX))
    return graph("Undelivered", about, "bytes", query(log, "task log"), query(telemetry, "telemetry"))


def dropped() -> timeseries.Panel:
    """Return what was lost of its telemetry."""
    about = "Payloads of telemetry that the worker dropped since it started, and, with a collector, which and why."
    signal, reason = label(names.SIGNAL), label(names.REASON)
    why = increase(names.OUTBOX_DROPPED, signal, reason, **OTLP_WORKER)
    since_start = query(latest(names.WORKER_DROPPED, **ONE), "since its start")
    return graph("Dropped telemetry", about, MANY, since_start, query(why, f"{{{{{signal}}}}} {{{{{reason}}}}}"))


def processes() -> timeseries.Panel:
    """Return how many processes jobs have."""
    queue = label(names.QUEUE)
    count = latest(names.JOBS_PROCESSES, queue, **OTLP_WORKER)
    return graph("Processes of jobs", "Processes of jobs, by queue.", MANY, query(count, f"{{{{{queue}}}}}"))


def cpu() -> timeseries.Panel:
    """Return the daemon's CPU."""
    mode = label(names.CPU_MODE)
    used = rate(names.DAEMON_CPU, mode, **OTLP_WORKER)
    return graph(
        "CPU of the daemon", "CPUs that the daemon keeps busy.", MANY, query(used, f"{{{{{mode}}}}}"), stacked=True
    )


def memory() -> timeseries.Panel:
    """Return the daemon's memory."""
    held = latest(names.DAEMON_MEMORY, **OTLP_WORKER)
    return graph("Memory of the daemon", "Memory that the daemon holds.", "bytes", query(held, "resident"))


def handles() -> timeseries.Panel:
    """Return the daemon's threads and files."""
    about = "Threads of the daemon, and files and sockets that it has open."
    threads, files = (latest(metric, **OTLP_WORKER) for metric in (names.DAEMON_THREADS, names.DAEMON_FILES))
    return graph("Threads and files of the daemon", about, MANY, query(threads, "threads"), query(files, "files"))
