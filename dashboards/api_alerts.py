"""Alerts on the Edge API, and on the metrics without which no other alert can fire."""

from __future__ import annotations

from dashboards import links, prometheus, recorded, thresholds
from dashboards.alert import Alert, duration, window
from dashboards.thresholds import CRITICAL, WARNING
from edge_otel.telemetry import names

_TRANSPORT = f"/d/{links.TRANSPORT}"


def alerts(scale: float) -> list[Alert]:
    """Return them for rules that are ``scale`` times as slow."""
    errors, slow, refused = thresholds.API_ERRORS, thresholds.API_SLOW, thresholds.TELEMETRY_NOT_FORWARDED
    down = thresholds.API_INSTANCE_DOWN
    absent, old = thresholds.FLEET_METRICS_ABSENT, thresholds.FLEET_SNAPSHOT_STALE
    count = prometheus.increase(
        names.REQUEST_SECONDS, "route", part="_count", window=window(errors, scale), status="=~5.."
    )
    many = prometheus.increase(names.REQUEST_SECONDS, "route", part="_count", window=window(slow, scale))
    rejected = prometheus.rate(names.OTLP_REJECTED, "signal", "reason", window=window(refused, scale))
    age = prometheus.series(names.SNAPSHOT_AGE)
    return [
        Alert(
            "EdgeApiErrors",
            CRITICAL,
            errors,
            f"{recorded.API_ERRORS} > {errors.value:g}\nand on (route) ({count} > {errors.least:g})",
            f"more than {errors.value:.0%} of the requests of a route within {duration(errors.window)} were answered"
            f" with 5xx, and more than {errors.least:g} of them",
            "The Edge API answers {{ $labels.route }} with errors",
            "{{ $value | humanizePercentage }} of the requests to {{ $labels.route }} were answered with 5xx.",
            _TRANSPORT,
        ),
        Alert(
            "EdgeApiSlow",
            WARNING,
            slow,
            f"{recorded.API_P95} > {slow.value:g}\nand on (route) ({many} > {slow.least:g})",
            f"5 % of the requests of a route within {duration(slow.window)} took more than {slow.value:g} s, and there"
            f" were more than {slow.least:g} of them; logs and telemetry take what a site's link takes",
            "The Edge API answers {{ $labels.route }} slowly",
            "5 % of the requests to {{ $labels.route }} take more than {{ $value | humanizeDuration }}.",
            _TRANSPORT,
        ),
        Alert(
            "EdgeTelemetryNotForwarded",
            WARNING,
            refused,
            f"{rejected} > 0",
            "the gateway did not pass telemetry of workers on for one reason all that time",
            "{{ $labels.signal }} of workers do not reach the collector: {{ $labels.reason }}",
            "{{ $value | humanize }} payloads a second with {{ $labels.signal }} of workers are not passed on, because:"
            " {{ $labels.reason }}. Workers keep what the collector could not take, until their spool is full.",
            _TRANSPORT,
        ),
        Alert(
            "EdgeApiInstanceDown",
            WARNING,
            down,
            f"({prometheus.scraped()}) == 0",
            "Prometheus cannot scrape one Edge API that it is to scrape",
            "The Edge API at {{ $labels.instance }} does not answer",
            "{{ $labels.instance }} is not scraped. Workers go to the other API servers, if there are any.",
            _TRANSPORT,
        ),
        Alert(
            "EdgeFleetMetricsAbsent",
            CRITICAL,
            absent,
            # Without the job's name, which is yours to choose.
            f"absent({age})",
            "Prometheus gets nothing from any Edge API: it is down, or is not scraped",
            "No Edge API can be scraped",
            f"Prometheus has no {age} from any Edge API. No other alert on workers and queues can fire.",
            _TRANSPORT,
        ),
        Alert(
            "EdgeFleetSnapshotStale",
            CRITICAL,
            old,
            f"min({age}) > {old.value:g}",
            f"every Edge API answers, but none could read the database for more than {duration(old.value)}",
            "The Edge API cannot read its database",
            "The newest look at the database is {{ $value | humanizeDuration }} old, and metrics of workers and queues"
            " are left out. No other alert on them can fire.",
            _TRANSPORT,
        ),
    ]
