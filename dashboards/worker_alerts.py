"""Alerts on single workers. A parked one, in maintenance or stopped in order, is nobody's trouble."""

from __future__ import annotations

from dashboards import links, prometheus, thresholds
from dashboards.alert import Alert, duration, window
from dashboards.thresholds import CRITICAL, WARNING
from edge_otel.telemetry import names

PARKED = ("maintenance request", "maintenance pending", "maintenance mode", "offline", "offline maintenance")
"""States in which silence is expected."""
_GONE = 30
"""Of names.STATE_CODES; what such a worker said last of its host stays in the database, and is old."""
_BRIDGED = 300.0
"""Seconds of missing scrapes, as at a restart of the API, that do not begin a ``for`` of hours anew."""

_FLEET = f"/d/{links.FLEET}"
_WORKER = f"/d/{links.WORKER}?var-worker={{{{ $labels.worker | urlquery }}}}"


def alerts(scale: float) -> list[Alert]:
    """Return them for rules that are ``scale`` times as slow."""
    return [*_silence(scale), *_parked_too_long(scale), *_at_the_site(scale)]


def _silence(scale: float) -> list[Alert]:
    stale, lost, cut_off = thresholds.HEARTBEAT_STALE, thresholds.WORKER_LOST, thresholds.WORKER_CANNOT_REACH_API
    parked = prometheus.in_state(*PARKED)
    by = prometheus.label(names.WORKER_NAME)
    look = window(cut_off, scale)
    answered = prometheus.increase(names.HEARTBEAT_SECONDS, by, part="_count", window=look, edge_result="=ok")
    again = prometheus.increase(names.RECONNECTS, by, window=look)
    # Others export metrics of this name, too; and one that has just started has nothing to be compared with.
    daemon = prometheus.series(names.DAEMON_THREADS, **{by: "=~.+"})
    alive = f"max by ({by}) ({daemon}) and on ({by}) max by ({by}) ({daemon} offset {look})"
    unreachable = f"({alive} unless on ({by}) ({answered} > 0))\nor ({again} > {cut_off.value:g})"
    return [
        Alert(
            "EdgeHeartbeatStale",
            WARNING,
            stale,
            f"{prometheus.stale(stale.value)}\nunless on (worker, team) ({parked})",
            f"no heartbeat of a worker that is not parked for more than {stale.value:g} of its own intervals",
            "Worker {{ $labels.worker }} is silent",
            "The last heartbeat of {{ $labels.worker }} was {{ $value | humanizeDuration }} ago, more than"
            f" {stale.value:g} of the intervals that it was told.",
            _WORKER,
        ),
        Alert(
            "EdgeWorkerLost",
            CRITICAL,
            lost,
            f"{prometheus.heartbeat_age()}\nand on (worker, team) ({prometheus.in_state('unknown')})",
            "a worker is in state unknown: it went silent without saying goodbye, and its jobs are given up",
            "Worker {{ $labels.worker }} is lost",
            "{{ $labels.worker }} was heard {{ $value | humanizeDuration }} ago for the last time and did not stop in"
            " order. Its jobs are given up; nothing is sent to it.",
            _WORKER,
        ),
        Alert(
            "EdgeWorkerCannotReachApi",
            WARNING,
            cut_off,
            # The worker's own metrics call it by another label: inhibition compares this one.
            f'label_replace({unreachable}, "worker", "$1", "{by}", "(.+)")',
            "the telemetry of a worker arrives, but none of its heartbeats was answered for"
            f" {duration(cut_off.window)}; or it registered anew more than {cut_off.value:g} times in that time",
            "Worker {{ $labels.worker }} cannot reach the Edge API, or not for long",
            "{{ $labels.worker }} lives, but within " + duration(cut_off.window) + " no heartbeat of it was answered,"
            f" or it had to register again more than {cut_off.value:g} times.",
            _WORKER,
        ),
    ]


def _parked_too_long(scale: float) -> list[Alert]:
    drain, maintenance, versions = (
        thresholds.DRAIN_TOO_LONG,
        thresholds.MAINTENANCE_TOO_LONG,
        thresholds.VERSION_SKEW,
    )
    gap = duration(max(_BRIDGED * scale, 5.0))
    code = f"max by (worker, team) (last_over_time({prometheus.series(names.WORKER_STATE_CODE, window=gap)}))"
    info = f"last_over_time({prometheus.series(names.WORKER_INFO, window=gap)})"
    kinds = f"count by (version, airflow_version) ({info} and on (worker) ({code} < {_GONE}))"
    return [
        Alert(
            "EdgeDrainTooLong",
            WARNING,
            drain,
            f"{code} >= 20 < {_GONE}",
            "a worker is told to stop and still holds jobs",
            "Worker {{ $labels.worker }} does not finish draining",
            "{{ $labels.worker }} was told to stop more than " + duration(drain.lasts) + " ago and still has jobs"
            " (state code {{ $value }}). Until they end it takes no others.",
            _WORKER,
        ),
        Alert(
            "EdgeMaintenanceTooLong",
            WARNING,
            maintenance,
            f"{code} >= 11 < 20",
            "a worker that is there is in maintenance",
            "Worker {{ $labels.worker }} was forgotten in maintenance",
            "{{ $labels.worker }} has been in maintenance for more than " + duration(maintenance.lasts) + " (state code"
            " {{ $value }}) and takes no jobs.",
            _WORKER,
        ),
        Alert(
            "EdgeVersionSkew",
            WARNING,
            versions,
            f"count({kinds}) > {versions.value:g}",
            f"more than {versions.value:g} version of edge-otel or Airflow on the workers that are there",
            "Workers run different versions",
            "{{ $value }} different versions of edge-otel and Airflow have been on the workers for more than "
            + duration(versions.lasts)
            + ".",
            _FLEET,
        ),
    ]


def _at_the_site(scale: float) -> list[Alert]:
    logs, dropped = thresholds.LOG_BACKLOG_GROWING, thresholds.TELEMETRY_DROPPED
    disk, clock = thresholds.DISK_FILLING, thresholds.CLOCK_SKEW
    here = f"and on (worker) ({prometheus.state_from(0, _GONE)})"
    growth = f"max by (worker) (deriv({prometheus.series(names.WORKER_LOG_BACKLOG, window=window(logs, scale))}))"
    lost = f"max by (worker) (increase({prometheus.series(names.WORKER_DROPPED, window=window(dropped, scale))}))"
    ahead = thresholds.DISK_FULL_WITHIN * scale
    # A single large file makes a slope as well, but none that lasts.
    lately = prometheus.series(names.WORKER_DISK, window=duration(max(disk.lasts * scale, 5.0)))
    soon = (
        f"max by (worker) (predict_linear({prometheus.series(names.WORKER_DISK, window=window(disk, scale))},"
        f" {ahead:g})) > 1 and max by (worker) (deriv({lately})) > 0"
    )
    fill, skew = prometheus.latest(names.WORKER_DISK, "worker"), prometheus.series(names.WORKER_CLOCK_SKEW)
    filling = f"({fill} > {disk.value:g} or ({fill} > {disk.least:g} and {soon}))"
    return [
        Alert(
            "EdgeLogBacklogGrowing",
            WARNING,
            logs,
            f"({prometheus.latest(names.WORKER_LOG_BACKLOG, 'worker')} > {logs.value:.0f} and {growth} > 0)\n{here}",
            f"more than {logs.value / thresholds.MIB:g} MiB of task log wait at the site, and they grow",
            "Task logs of worker {{ $labels.worker }} do not arrive",
            "{{ $value | humanize1024 }}B of task log wait at {{ $labels.worker }}, and they grow.",
            _WORKER,
        ),
        Alert(
            "EdgeTelemetryDropped",
            WARNING,
            dropped,
            f"{lost} > 0\n{here}",
            f"a worker dropped telemetry within {duration(dropped.window)}",
            "Worker {{ $labels.worker }} drops telemetry",
            "{{ $labels.worker }} dropped {{ $value | humanize }} payloads of telemetry within "
            + duration(dropped.window)
            + ".",
            _WORKER,
        ),
        Alert(
            "EdgeDiskFilling",
            WARNING,
            disk,
            f"{filling}\n{here}",
            f"the disk of a worker's state folder is fuller than {disk.value:.0%}, or fuller than {disk.least:.0%} and"
            f" at this pace full within {duration(thresholds.DISK_FULL_WITHIN)}",
            "The disk of worker {{ $labels.worker }} is filling up",
            "The disk with the state folder of {{ $labels.worker }} is {{ $value | humanizePercentage }} full.",
            _WORKER,
        ),
        Alert(
            "EdgeClockSkew",
            WARNING,
            clock,
            f"max by (worker) (abs({skew})) > {clock.value:g}\n{here}",
            f"the clock of a worker is off by more than {clock.value:g} s",
            "The clock of worker {{ $labels.worker }} is wrong",
            "The clock of {{ $labels.worker }} is {{ $value | humanizeDuration }} away from the server's.",
            _WORKER,
        ),
    ]
