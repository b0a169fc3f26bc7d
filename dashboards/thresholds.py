"""Every number of the alerts, in one place; the docs are tested against them.

Seconds, bytes, and ratios from 0 to 1. What a number rests on is said beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

MINUTE, HOUR, MIB = 60.0, 3600.0, 1024.0 * 1024.0

RUNBOOKS = "docs/runbooks.md"
"""What ``runbook_url`` begins with: put the address before it under which your people read the docs."""
GRAFANA = ""
"""What ``dashboard_url`` begins with, such as https://grafana.example; empty: a path below the Grafana at hand."""

CRITICAL, WARNING = "critical", "warning"
"""Severities: the first wakes somebody up, the second can wait until the morning."""


@dataclass(frozen=True)
class Limit:
    """When one alert fires."""

    lasts: float
    """Seconds that it must be so before anybody is told (``for``)."""
    value: float = 0.0
    window: float = 0.0
    """Seconds that a rate or an increase looks back; 0 for what is looked at as it is now."""
    least: float = 0.0
    """How much there must be at all before a ratio means something."""


HEARTBEAT_STALE = Limit(1 * MINUTE, value=3)
"""In intervals of the worker's own: pauses are up to 1.25 of them, and after 5 the worker counts as gone."""
WORKER_LOST = Limit(2 * MINUTE)
"""Long enough for workers to come back after an outage of the API, which was no fault of theirs."""
WORKER_CANNOT_REACH_API = Limit(5 * MINUTE, value=5, window=10 * MINUTE)
"""Registrations after the first. The window holds two heartbeats of a fleet of 10 000, which has 200 s between them."""
DRAIN_TOO_LONG = Limit(1 * HOUR)
MAINTENANCE_TOO_LONG = Limit(24 * HOUR)
VERSION_SKEW = Limit(24 * HOUR, value=1)
LOG_BACKLOG_GROWING = Limit(15 * MINUTE, value=16 * MIB, window=15 * MINUTE)
TELEMETRY_DROPPED = Limit(1 * MINUTE, window=15 * MINUTE)
DISK_FILLING = Limit(15 * MINUTE, value=0.9, window=1 * HOUR, least=0.75)
"""At 0.9 the worker's own health turns to warning. ``least``: the fill from which on a growth is looked at."""
DISK_FULL_WITHIN = 4 * HOUR
CLOCK_SKEW = Limit(10 * MINUTE, value=30)

QUEUE_WITHOUT_WORKERS = Limit(5 * MINUTE)
QUEUE_WAIT_HIGH = Limit(5 * MINUTE, value=15 * MINUTE)
QUEUE_SATURATED = Limit(15 * MINUTE, value=0.95)
JOB_STUCK_IN_ASSIGNMENT = Limit(5 * MINUTE, value=10, window=5 * MINUTE)
"""An offer is accepted within a second or so, and returns to the queue after 30."""
FAILURE_RATIO_HIGH = Limit(5 * MINUTE, value=0.2, window=15 * MINUTE, least=5)
"""Of jobs, not of tasks: a job whose task's own code failed has done its work, and Airflow tells of it."""
JOBS_LOST = Limit(1 * MINUTE, window=30 * MINUTE)

API_ERRORS = Limit(5 * MINUTE, value=0.05, window=5 * MINUTE, least=5)
API_SLOW = Limit(10 * MINUTE, value=2, window=5 * MINUTE, least=20)
TELEMETRY_NOT_FORWARDED = Limit(15 * MINUTE, window=10 * MINUTE)
API_INSTANCE_DOWN = Limit(5 * MINUTE)
FLEET_METRICS_ABSENT = Limit(2 * MINUTE)
FLEET_SNAPSHOT_STALE = Limit(1 * MINUTE, value=1 * MINUTE)
