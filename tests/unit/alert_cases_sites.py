"""Cases of the alerts on what workers say of their sites."""

from __future__ import annotations

from alert_case import HOUR, MINUTE, Case, series, until, worker

from edge_otel.telemetry import names

W = {"worker": "w"}
MIB = 1024 * 1024
GONE = worker("offline", until(0), name="gone")
OFF = {"worker": "gone"}
HERE = worker("running")


def twice(metric, value, **labels):
    """Return the series that two replicas tell alike."""
    return [series(metric, value, **labels), series(metric, value, **labels, instance="b")]


CASES = [
    Case(
        "EdgeLogBacklogGrowing",
        "fires for a backlog that grows beyond 16 MiB",
        [*HERE, *twice(names.WORKER_LOG_BACKLOG, lambda at: at / 60 * MIB, **W)],
        {20 * MINUTE: [], 40 * MINUTE: [W]},
    ),
    Case(
        "EdgeLogBacklogGrowing",
        "does not fire for a small one, one that is sent, or one that a stopped worker left behind",
        [
            *worker("running"),
            series(names.WORKER_LOG_BACKLOG, lambda at: at % 600 / 60 * MIB, **W),
            *worker("running", name="sends"),
            series(names.WORKER_LOG_BACKLOG, lambda at: (100 - at / 60) * MIB, worker="sends"),
            *GONE,
            series(names.WORKER_LOG_BACKLOG, lambda at: at / 60 * MIB, **OFF),
        ],
        {t * MINUTE: [] for t in (30, 45, 60)},
    ),
    Case(
        "EdgeTelemetryDropped",
        "fires when something was dropped, and ends a while after the last",
        [*HERE, *twice(names.WORKER_DROPPED, lambda at: 0 if at < 600 else 7, **W)],
        {10 * MINUTE: [], 12 * MINUTE: [W], 27 * MINUTE: []},
    ),
    Case(
        "EdgeTelemetryDropped",
        "does not fire for what was dropped long ago, when the daemon restarts, or by a worker that is gone",
        [
            *HERE,
            series(names.WORKER_DROPPED, lambda at: 50 if at < 900 else 0, **W),
            *GONE,
            series(names.WORKER_DROPPED, lambda at: at, **OFF),
        ],
        {t * MINUTE: [] for t in (10, 17, 40)},
    ),
    Case(
        "EdgeDiskFilling",
        "fires for a disk that is full, and for one that will be within four hours",
        [
            *HERE,
            *twice(names.WORKER_DISK, 0.93, **W),
            *worker("running", name="soon"),
            series(names.WORKER_DISK, lambda at: 0.7 + 0.1 * at / HOUR, worker="soon"),
        ],
        {14 * MINUTE: [], 30 * MINUTE: [W], 55 * MINUTE: [W, {"worker": "soon"}]},
    ),
    Case(
        "EdgeDiskFilling",
        "does not fire for one that fills slowly, or shrinks, or whose worker is gone",
        [
            *HERE,
            series(names.WORKER_DISK, lambda at: 0.8 + 0.01 * at / HOUR, **W),
            *worker("running", name="shrinks"),
            series(names.WORKER_DISK, lambda at: 0.89 - 0.1 * at / HOUR, worker="shrinks"),
            *GONE,
            series(names.WORKER_DISK, 0.99, **OFF),
        ],
        {HOUR: [], 2 * HOUR: []},
        60,
    ),
    Case(
        "EdgeDiskFilling",
        "does not fire for one on which something large was put, and no more",
        [*HERE, series(names.WORKER_DISK, lambda at: 0.76 if at < HOUR / 2 else 0.82, **W)],
        {t * MINUTE: [] for t in range(30, 100, 5)},
    ),
    Case(
        "EdgeClockSkew",
        "fires for a clock that is behind, as for one that is ahead",
        [
            *HERE,
            *twice(names.WORKER_CLOCK_SKEW, -40, **W),
            *worker("idle", name="ahead"),
            series(names.WORKER_CLOCK_SKEW, 31, worker="ahead"),
        ],
        {9 * MINUTE: [], 11 * MINUTE: [W, {"worker": "ahead"}]},
    ),
    Case(
        "EdgeClockSkew",
        "does not fire for a few seconds, or for a worker that is gone",
        [*HERE, series(names.WORKER_CLOCK_SKEW, -20, **W), *GONE, series(names.WORKER_CLOCK_SKEW, 99, **OFF)],
        {30 * MINUTE: []},
    ),
]
