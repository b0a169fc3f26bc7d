"""Alerts on queues and jobs."""

from __future__ import annotations

from dashboards import links, prometheus, recorded, thresholds
from dashboards.alert import Alert, duration, window
from dashboards.thresholds import CRITICAL, WARNING
from edge_otel.telemetry import names

_QUEUE = f"/d/{links.JOBS}?var-queue={{{{ $labels.queue | urlquery }}}}"
_BY = ("queue", "team")


def alerts(scale: float) -> list[Alert]:
    """Return them for rules that are ``scale`` times as slow."""
    return [*_waiting(scale), *_going_wrong(scale)]


def _waiting(scale: float) -> list[Alert]:
    nobody, wait = thresholds.QUEUE_WITHOUT_WORKERS, thresholds.QUEUE_WAIT_HIGH
    full, stuck = thresholds.QUEUE_SATURATED, thresholds.JOB_STUCK_IN_ASSIGNMENT
    queued = f"{prometheus.latest(names.JOBS, *_BY, state='=queued')} > 0"
    without = f"{prometheus.latest(names.QUEUE_WORKERS, *_BY)} == 0"
    offered = prometheus.series(names.JOBS, window=window(stuck, scale), state="=assigned")
    mean = f"sum by (queue) (max by (queue, team) (avg_over_time({offered})))"
    # A scrape that happens to see each of a few jobs for its moment is none.
    lately = prometheus.series(names.JOBS, window=duration(max(60 * scale, 5.0)), state="=assigned")
    always = f"max by (queue) (min_over_time({lately}))"
    offers = prometheus.rate(names.JOBS_ASSIGNED, "queue", window=window(stuck, scale))
    return [
        Alert(
            "EdgeQueueWithoutWorkers",
            CRITICAL,
            nobody,
            f"{queued}\nand on (queue, team) ({without})",
            "jobs are queued and no worker takes jobs of their queue",
            "Nobody works on queue {{ $labels.queue }}",
            "{{ $value }} jobs wait in queue {{ $labels.queue }}, and no worker takes jobs of it.",
            _QUEUE,
        ),
        Alert(
            "EdgeQueueWaitHigh",
            WARNING,
            wait,
            f"{prometheus.latest(names.QUEUE_OLDEST, *_BY)} > {wait.value:g}",
            f"the oldest queued job has waited for more than {duration(wait.value)}",
            "Jobs wait long in queue {{ $labels.queue }}",
            "The oldest job of queue {{ $labels.queue }} has waited for {{ $value | humanizeDuration }}.",
            _QUEUE,
        ),
        Alert(
            "EdgeQueueSaturated",
            WARNING,
            full,
            f"({queued})\nand on (queue, team) ({recorded.QUEUE_FILL} >= {full.value:g})\n"
            # Workers of several queues may be full with the jobs of another one.
            f"or ({queued}) and on (team) ({recorded.TEAM_FILL} >= {full.value:g})",
            f"jobs are queued, and {full.value:.0%} of the slots are taken: those for the queue by its jobs, or those"
            " of the whole team",
            "Queue {{ $labels.queue }} needs more slots",
            "{{ $value }} jobs wait in queue {{ $labels.queue }}, and its workers have hardly a free slot.",
            _QUEUE,
        ),
        Alert(
            "EdgeJobStuckInAssignment",
            WARNING,
            stuck,
            # Little's law: those on offer at a time, by those offered in a second. No offer at all is for ever.
            f"({mean}\n/ on (queue) ({offers} or on (queue) 0 * {mean}) > {stuck.value:g})\n"
            f"and on (queue) ({always} > 0)",
            f"an offered job is accepted only after more than {stuck.value:g} s on the average of"
            f" {duration(stuck.window)}, or never",
            "Workers do not accept the jobs of queue {{ $labels.queue }}",
            "Jobs of queue {{ $labels.queue }} are on offer for {{ $value | humanizeDuration }} on average before a"
            " worker accepts them (+Inf: none was offered, and one is stuck).",
            _QUEUE,
        ),
    ]


def _going_wrong(scale: float) -> list[Alert]:
    failing, lost = thresholds.FAILURE_RATIO_HIGH, thresholds.JOBS_LOST
    failed = prometheus.increase(names.JOBS_FINISHED, "queue", window=window(failing, scale), outcome="=failed")
    is_lost = {"state": "=lost"}
    now = prometheus.series(names.JOBS, **is_lost)
    before = prometheus.series(names.JOBS, window=window(lost, scale), **is_lost)
    return [
        Alert(
            "EdgeFailureRatioHigh",
            WARNING,
            failing,
            f"{recorded.FAILURES} > {failing.value:g}\nand on (queue) ({failed} > {failing.least:g})",
            f"more than {failing.value:.0%} of the jobs that ended within {duration(failing.window)} failed, and more"
            f" than {failing.least:g} of them; a failure of a task's own code is none",
            "Jobs of queue {{ $labels.queue }} fail",
            "{{ $value | humanizePercentage }} of the jobs of queue {{ $labels.queue }} that ended within "
            + duration(failing.window)
            + " failed: their processes were killed, or did not start.",
            _QUEUE,
        ),
        Alert(
            "EdgeJobsLost",
            WARNING,
            lost,
            # A gauge of the database: finished rows are purged, so it is not compared with nothing.
            # Over all replicas: one may have come in the place of another meanwhile.
            f"max by (queue, team) ({now}) - min by (queue, team) (min_over_time({before})) > {lost.value:g}",
            f"jobs were lost within {duration(lost.window)}: their worker went away, or Airflow took them back",
            "Jobs of queue {{ $labels.queue }} were lost",
            "{{ $value }} jobs of queue {{ $labels.queue }} were lost within " + duration(lost.window) + ".",
            _QUEUE,
        ),
    ]
