"""Cases of the alerts on workers."""

from __future__ import annotations

from alert_case import HOUR, MINUTE, Case, Series, series, until, worker

from edge_otel.telemetry import names

W = {"worker": "w"}
BY_NAME = {"edge_worker_name": "w"}
DAY = 24 * HOUR
SILENT_AT = 5 * MINUTE


def died(at):
    """Return the state of a worker that fell silent: after five intervals it is given up."""
    return "running" if at < SILENT_AT + 150 else "unknown"


def away_at_an_api_restart(at):
    return not 3 * HOUR <= at < 3 * HOUR + 3 * MINUTE


def info(version, name):
    labels = {"worker": name, "version": version, "airflow_version": "3.3.2", "python_version": "3.11", "os": "linux"}
    return series(names.WORKER_INFO, 1, **labels)


CASES = [
    Case(
        "EdgeHeartbeatStale",
        "fires for a worker that died, once by two replicas, and ends when it is heard again",
        [
            *worker(died, lambda at: min(at, SILENT_AT) if at < 20 * MINUTE else at),
            *worker(died, lambda at: min(at, SILENT_AT) if at < 20 * MINUTE else at, instance="b"),
            *worker("running", name="other"),
        ],
        {SILENT_AT + 135: [], SILENT_AT + 180: [W], 15 * MINUTE: [W], 21 * MINUTE: []},
    ),
    Case(
        "EdgeHeartbeatStale",
        "is not about workers that are parked, or that report slowly because they were told to",
        [
            *worker("maintenance mode", until(0), name="serviced"),
            *worker("maintenance pending", until(0), name="to-be-serviced"),
            *worker("offline", until(0), name="stopped"),
            *worker("offline maintenance", until(0), name="stopped-in-maintenance"),
            *worker("idle", lambda at: at // 200 * 200, name="slow", interval=200),
        ],
        {10 * MINUTE: [], 30 * MINUTE: []},
    ),
    Case(
        "EdgeHeartbeatStale",
        "does not fire when a replica that fell behind, or went away, is contradicted by another",
        [
            *worker("running", until(60), instance="gone", scraped=lambda at: at < 10 * MINUTE),
            *worker("running", instance="b"),
        ],
        {9 * MINUTE: [], 15 * MINUTE: []},
    ),
    Case(
        "EdgeWorkerLost",
        "fires for a worker that died and not for those that left in order",
        [*worker(died, until(SILENT_AT)), *worker("offline", until(0), name="stopped")],
        {SILENT_AT + 150: [], SILENT_AT + 285: [W]},
    ),
    Case(
        "EdgeWorkerLost",
        "does not fire when all come back after an outage of the API, or from maintenance",
        [
            *worker(
                lambda at: "unknown" if 600 <= at < 660 else "idle",
                lambda at: 300 if 300 < at < 660 else at,
                scraped=lambda at: not 300 <= at < 600,
            ),
            *worker("offline maintenance", until(0), name="serviced"),
        ],
        {t: [] for t in (600, 645, 720, 1200)},
    ),
    Case(
        "EdgeWorkerCannotReachApi",
        "fires while a worker's telemetry comes by its site's collector and no heartbeat is answered",
        [
            series(names.DAEMON_THREADS, 9, **BY_NAME),
            series(names.HEARTBEAT_SECONDS, lambda at: min(at, 600) / 30, "_count", **BY_NAME, edge_result="ok"),
        ],
        {15 * MINUTE: [], 30 * MINUTE: [{**W, **BY_NAME}]},
    ),
    Case(
        "EdgeWorkerCannotReachApi",
        "fires for a link that comes and goes",
        [
            series(names.DAEMON_THREADS, 9, **BY_NAME),
            series(names.HEARTBEAT_SECONDS, lambda at: at / 30, "_count", **BY_NAME, edge_result="ok"),
            series(names.RECONNECTS, lambda at: at // 60, **BY_NAME),
        ],
        {20 * MINUTE: [{**W, **BY_NAME}]},
    ),
    Case(
        "EdgeWorkerCannotReachApi",
        "does not fire for workers that are heard, were restarted, or have stopped",
        [
            series(names.DAEMON_THREADS, 9, **BY_NAME),
            series(names.HEARTBEAT_SECONDS, lambda at: at % 900 / 30, "_count", **BY_NAME, edge_result="ok"),
            series(names.RECONNECTS, lambda at: at % 900 // 300, **BY_NAME),
            # A long interval: its first heartbeat is no increase, and the second comes late.
            series(names.DAEMON_THREADS, lambda at: 9 if at > 600 else None, edge_worker_name="new"),
            series(
                names.HEARTBEAT_SECONDS,
                lambda at: 1 + (at - 600) // 290 if at > 600 else None,
                "_count",
                edge_worker_name="new",
                edge_result="ok",
            ),
            # What is no worker has threads as well.
            Series('process_thread_count{job="other"}', lambda _: 9),
            series(names.DAEMON_THREADS, lambda at: 9 if at < 600 else None, edge_worker_name="stopped"),
            series(
                names.HEARTBEAT_SECONDS,
                lambda at: at / 30 if at < 600 else None,
                "_count",
                edge_worker_name="stopped",
                edge_result="ok",
            ),
        ],
        {t * MINUTE: [] for t in (8, 16, 25, 31)},
    ),
    Case(
        "EdgeDrainTooLong",
        "fires after an hour, also when the API was restarted meanwhile",
        [
            *worker(lambda at: "terminating" if at > 2.5 * HOUR else "running", scraped=away_at_an_api_restart),
            *worker(lambda at: "shutdown request" if at > 3.6 * HOUR else "running", name="late"),
        ],
        {3 * HOUR: [], 4 * HOUR: [W]},
        60,
    ),
    Case(
        "EdgeDrainTooLong",
        "does not fire for one that drains for half an hour, or left",
        [
            *worker(lambda at: "terminating" if at < HOUR / 2 else "offline"),
            *worker(lambda at: "terminating" if at < HOUR / 2 else "unknown", name="died"),
        ],
        {HOUR * 3 // 4: [], 3 * HOUR: []},
        60,
    ),
    Case(
        "EdgeMaintenanceTooLong",
        "fires after a day, also when the API was restarted meanwhile",
        [*worker("maintenance mode", scraped=away_at_an_api_restart), *worker("idle", name="works")],
        {DAY - HOUR: [], DAY + HOUR: [W]},
        60,
    ),
    Case(
        "EdgeMaintenanceTooLong",
        "does not fire for one that was in maintenance each day, or that is switched off",
        [
            *worker(lambda at: "maintenance mode" if at % DAY < 20 * HOUR else "idle"),
            *worker("offline maintenance", until(0), name="off"),
        ],
        {19 * HOUR: [], 30 * HOUR: [], 43 * HOUR: []},
        60,
    ),
    Case(
        "EdgeVersionSkew",
        "fires a day after an upgrade of half of the workers",
        [*worker("idle"), *worker("running", name="v"), info("1.0", "w"), info("1.1", "v")],
        {DAY - HOUR: [], DAY + HOUR: [{}]},
        60,
    ),
    Case(
        "EdgeVersionSkew",
        "does not count workers that are gone",
        [*worker("idle"), *worker("offline", name="v"), info("1.0", "w"), info("1.1", "v")],
        {DAY + HOUR: []},
        60,
    ),
]
