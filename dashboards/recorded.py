"""Recording rules: the ratios that alerts and people look at, named as Prometheus advises, level:metric:operation."""

from __future__ import annotations

from dashboards import prometheus, thresholds
from dashboards.alert import window
from edge_otel.telemetry import names

HEARTBEAT_AGE = "worker:edge_worker_heartbeat_age:intervals"
QUEUE_FILL = "queue:edge_queue_slots_used:ratio"
TEAM_FILL = "team:edge_worker_slots_used:ratio"
FAILURES = "queue:edge_jobs_failed:ratio"
API_ERRORS = "route:edge_api_errors:ratio"
API_P95 = "route:edge_api_request_duration_seconds:p95"
_GATEWAY = ".*/otlp/.*"
"""Routes where what a collector does shows: they have an alert of their own."""
_LOGS = ".*/log|.*/logs/push/.*"
"""Routes whose requests take as long as a site's link takes for megabytes."""


def rules(scale: float) -> list[dict[str, str]]:
    """Return them with windows ``scale`` times as long."""
    of_api = {"route": f"!~{_GATEWAY}"}
    failing, errors = window(thresholds.FAILURE_RATIO_HIGH, scale), window(thresholds.API_ERRORS, scale)
    slow = window(thresholds.API_SLOW, scale)
    ended = prometheus.rate(names.JOBS_FINISHED, "queue", window=failing)
    failed = prometheus.rate(names.JOBS_FINISHED, "queue", window=failing, outcome="=failed")
    requests = prometheus.rate(names.REQUEST_SECONDS, "route", part="_count", window=errors, **of_api)
    refused = prometheus.rate(names.REQUEST_SECONDS, "route", part="_count", window=errors, status="=~5..", **of_api)
    interval = prometheus.latest(names.WORKER_HEARTBEAT_INTERVAL, "worker", "team")
    taking = f"and on (worker, team) ({prometheus.state_from(0, 10)})"
    every = ("worker", "team")
    used = f"sum by (team) ({prometheus.latest(names.WORKER_SLOTS_USED, *every)} {taking})"
    slots = f"sum by (team) ({prometheus.latest(names.WORKER_SLOTS, *every)} {taking})"
    of_queue = ("queue", "team")
    queue_used = prometheus.latest(names.QUEUE_SLOTS_USED, *of_queue)
    queue_slots = prometheus.latest(names.QUEUE_SLOTS, *of_queue)
    named = {
        HEARTBEAT_AGE: f"{prometheus.heartbeat_age()} / {interval}",
        QUEUE_FILL: f"{queue_used} / ({queue_slots} > 0)",
        TEAM_FILL: f"{used} / ({slots} > 0)",
        FAILURES: f"{failed} / {ended}",
        API_ERRORS: f"{refused} / {requests}",
        API_P95: prometheus.quantile(0.95, names.REQUEST_SECONDS, "route", window=slow, route=f"!~{_GATEWAY}|{_LOGS}"),
    }
    return [{"record": name, "expr": expr} for name, expr in named.items()]
