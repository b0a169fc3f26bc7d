"""What one process counts."""

from __future__ import annotations

from datetime import UTC, datetime

from edge_otel.telemetry import counters, names

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_ends_of_jobs_are_counted_from_zero_on_so_that_the_first_failures_of_a_queue_are_an_increase():
    counters.assigned("fresh", {}, NOW, NOW)
    for outcome in ("success", "failed"):
        labels = {"queue": "fresh", "outcome": outcome}
        assert counters.REGISTRY.get_sample_value(names.JOBS_FINISHED.name, labels) == 0
