"""How queries are made from names."""

from __future__ import annotations

import pytest

from dashboards import prometheus
from edge_otel.telemetry import names

FLATTENED = {
    names.CPU_TIME: "system_cpu_time_seconds_total",
    names.CPU_UTILIZATION: "system_cpu_utilization_ratio",
    names.CPU_COUNT: "system_cpu_logical_count",
    names.MEMORY_USAGE: "system_memory_usage_bytes",
    names.LOAD_1: "edge_worker_load_1m",
    names.DAEMON_FILES: "process_unix_file_descriptor_count",
    names.HEARTBEAT_SECONDS: "edge_worker_heartbeat_duration_seconds",
    names.OUTBOX_DROPPED: "edge_worker_outbox_dropped_total",
    names.FACTS: "edge_worker_fact_value",
}
"""As Prometheus' own otlptranslator writes them."""


@pytest.mark.parametrize(("metric", "name"), FLATTENED.items(), ids=FLATTENED.values())
def test_a_metric_that_came_by_otlp_has_its_name_in_prometheus(metric, name):
    assert prometheus.name(metric) == name
    assert "edge_worker_name" in prometheus.labels(metric)


def test_a_metric_of_the_edge_api_keeps_its_name():
    assert prometheus.name(names.JOBS) == names.JOBS.name
    assert prometheus.labels(names.JOBS) == ("queue", "team", "state")


def test_what_every_replica_tells_is_taken_once_and_then_summed():
    assert prometheus.total(names.JOBS, "state", team="=~$team") == (
        'sum by (state) (max by (queue, team, state) (edge_jobs{team=~"$team"}))'
    )


def test_a_quantile_is_over_all_processes():
    assert prometheus.quantile(0.95, names.JOB_RUN_SECONDS, "queue", outcome="=success", window="5m") == (
        "histogram_quantile(0.95, sum by (queue, le) "
        '(rate(edge_job_run_duration_seconds_bucket{outcome="success"}[5m])))'
    )


def test_staleness_is_measured_by_what_the_worker_was_told():
    query = prometheus.stale(3)
    heard = "edge_worker_last_heartbeat_timestamp_seconds"
    assert query.startswith(f"min by (worker, team) (timestamp({heard}) - {heard}) > 3 * ")
    assert query.endswith("max by (worker, team) (edge_worker_heartbeat_interval_seconds)")


def test_a_value_cannot_end_its_quotes():
    assert prometheus.series(names.JOBS, queue='=a"\\b') == r'edge_jobs{queue="a\"\\b"}'


@pytest.mark.parametrize(
    "query",
    [
        lambda: prometheus.latest(names.JOBS, "worker"),
        lambda: prometheus.latest(names.JOBS, worker="=x"),
        lambda: prometheus.latest(names.JOBS, queue="x"),
        lambda: prometheus.latest(names.JOB_RUN_SECONDS),
        lambda: prometheus.rate(names.JOBS_STALE, part="_count"),
        lambda: prometheus.in_state("asleep"),
    ],
    ids=["by", "matcher", "operator", "histogram", "counter", "state"],
)
def test_what_does_not_exist_is_refused(query):
    with pytest.raises(ValueError, match=r".+"):
        query()
