"""Cases of the alerts on the API and on the metrics themselves."""

from __future__ import annotations

from alert_case import MINUTE, Case, Series, series, worker

from edge_otel.telemetry import names

ROUTE = {"route": "/v1/worker/{worker_name}"}
GATEWAY = {"route": "/v2/otlp/v1/{signal}"}
AWAY = {"signal": "traces", "reason": "collector_away"}


def answers(status, count, *, instance="a", **route):
    labels = {**(route or ROUTE), "method": "PATCH", "status": status, "instance": instance}
    return series(names.REQUEST_SECONDS, count, "_count", **labels)


def took(seconds, each_second, *, instance="a", **route):
    """Return the buckets of requests that all take so long; ``each_second`` of them."""
    labels = {**(route or ROUTE), "method": "PATCH", "status": "200", "instance": instance}
    bounds = [*names.REQUEST_SECONDS.buckets, float("inf")]

    def counted(bound):
        return lambda at: at % 1500 * each_second if seconds <= bound else 0

    return [
        series(names.REQUEST_SECONDS, counted(bound), "_bucket", **labels, le="+Inf" if bound > 99 else f"{bound:g}")
        for bound in bounds
    ] + [series(names.REQUEST_SECONDS, counted(bounds[-1]), "_count", **labels)]


CASES = [
    Case(
        "EdgeApiErrors",
        "fires for a route of which a tenth fails, over all replicas",
        [
            *(answers("200", lambda at: at, instance=api) for api in "ab"),
            *(answers("500", lambda at: at / 20, instance=api) for api in "ab"),
            answers("503", lambda at: at / 10, instance="b"),
        ],
        {4 * MINUTE: [], 8 * MINUTE: [ROUTE]},
    ),
    Case(
        "EdgeApiErrors",
        "does not fire for refusals, for a handful of errors, for a collector that is away, or at restarts",
        [
            answers("200", lambda at: at % 900),
            answers("403", lambda at: at % 900),
            answers("500", lambda at: at // 120, route="/v1/health"),
            answers("503", lambda at: at, **GATEWAY),
        ],
        {t * MINUTE: [] for t in (10, 16, 30)},
    ),
    Case(
        "EdgeApiSlow",
        "fires for a route that takes more than two seconds",
        [*took(3, 1), *took(0.01, 0.01, instance="b")],
        {9 * MINUTE: [], 14 * MINUTE: [ROUTE]},
    ),
    Case(
        "EdgeApiSlow",
        "does not fire for a fast one, at restarts, without requests, or for a slow collector",
        [
            *took(0.2, 5),
            *took(5, 0.1, **GATEWAY),
            *took(9, 0, route="/v1/health"),
            *took(9, 0.01, route="/v1/rare"),
            *took(9, 1, route="/v2/jobs/{job_id}/log"),
        ],
        {t * MINUTE: [] for t in (15, 26, 40)},
    ),
    Case(
        "EdgeTelemetryNotForwarded",
        "fires while the collector is away",
        [series(names.OTLP_REJECTED, lambda at: at / 10, **AWAY, instance=api) for api in "ab"],
        {14 * MINUTE: [], 17 * MINUTE: [AWAY]},
    ),
    Case(
        "EdgeTelemetryNotForwarded",
        "does not fire when the collector was restarted, or the API",
        [
            series(names.OTLP_REJECTED, lambda at: min(at, 120) / 10, **AWAY),
            series(names.OTLP_REJECTED, lambda at: 900 if at < 600 else 0, **AWAY, instance="b"),
        ],
        {t * MINUTE: [] for t in (15, 20, 30)},
    ),
    Case(
        "EdgeFleetMetricsAbsent",
        "fires when the last replica is gone, whatever else is scraped, and ends when one is back",
        [
            series(names.SNAPSHOT_AGE, lambda at: 1 if at < 300 else None),
            series(names.SNAPSHOT_AGE, lambda at: None if 600 <= at < 1200 else 1, instance="b"),
            series(names.DAEMON_THREADS, 9, edge_worker_name="w"),
        ],
        {8 * MINUTE: [], 11 * MINUTE: [], 13 * MINUTE: [{}], 21 * MINUTE: []},
    ),
    Case(
        "EdgeApiInstanceDown",
        "fires for the one of two replicas that is not scraped, whatever the scrape is called",
        [
            Series('up{job="e",instance="a"}', lambda at: 1),
            Series('up{job="e",instance="b"}', lambda at: float(at < 300)),
            *(series(names.SNAPSHOT_AGE, lambda at: 1 if at < 300 else None, job="e", instance=api) for api in "ab"),
        ],
        {9 * MINUTE: [], 11 * MINUTE: [{"instance": "b", "job": "e"}]},
    ),
    Case(
        "EdgeApiInstanceDown",
        "does not fire for a restart, or for what is no Edge API",
        [
            Series('up{job="e",instance="a"}', lambda at: float(not 300 <= at < 500)),
            Series('up{job="other",instance="b"}', lambda at: 0),
            series(names.SNAPSHOT_AGE, 1, job="e"),
        ],
        {9 * MINUTE: [], 20 * MINUTE: []},
    ),
    Case(
        "EdgeFleetMetricsAbsent",
        "does not fire for a fleet without workers, or while the database alone is away",
        [series(names.SNAPSHOT_AGE, lambda at: at)],
        {30 * MINUTE: []},
    ),
    Case(
        "EdgeFleetSnapshotStale",
        "fires when no replica can read the database, and the fleet's metrics are left out",
        [
            *worker("running", scraped=lambda at: at < 300),
            *(series(names.SNAPSHOT_AGE, lambda at: max(0, at - 300), instance=api) for api in "ab"),
        ],
        {6 * MINUTE: [], 8 * MINUTE: [{}]},
    ),
    Case(
        "EdgeFleetSnapshotStale",
        "does not fire while one of two replicas can, or when there is none",
        [
            series(names.SNAPSHOT_AGE, lambda at: at),
            series(names.SNAPSHOT_AGE, lambda at: 2 if at < 1200 else None, instance="b"),
            series(names.SNAPSHOT_AGE, lambda at: 2 if at >= 1200 else None, instance="c"),
        ],
        {15 * MINUTE: [], 25 * MINUTE: []},
    ),
]
