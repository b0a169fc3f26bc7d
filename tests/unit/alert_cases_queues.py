"""Cases of the alerts on queues and jobs."""

from __future__ import annotations

from alert_case import HOUR, MINUTE, Case, series, worker

from edge_otel.telemetry import names

Q = {"queue": "q"}
OTHER = {"queue": "other"}


def jobs(state, count, **labels):
    return series(names.JOBS, count, **{**Q, **labels}, state=state)


def slots(used, there, **labels):
    of_queue = {**Q, **labels}
    return [series(names.QUEUE_SLOTS_USED, used, **of_queue), series(names.QUEUE_SLOTS, there, **of_queue)]


def busy(used, there, team=""):
    """Return a worker of a team with so many of its slots taken."""
    who = {"worker": "w", "team": team} if team else {"worker": "w"}
    gauges = [series(names.WORKER_SLOTS_USED, used, **who), series(names.WORKER_SLOTS, there, **who)]
    return [*gauges, series(names.WORKER_STATE_CODE, 1, **who)]


def ended(outcome, count, instance="a", **labels):
    return series(names.JOBS_FINISHED, count, **{**Q, **labels}, outcome=outcome, instance=instance)


CASES = [
    Case(
        "EdgeQueueWithoutWorkers",
        "fires for queued jobs that nobody takes, once by two replicas, and ends when somebody does",
        [
            *(jobs("queued", 3, instance=api, team="t") for api in "ab"),
            *(series(names.QUEUE_WORKERS, lambda at: float(at > 900), **Q, team="t", instance=api) for api in "ab"),
        ],
        {4 * MINUTE: [], 6 * MINUTE: [{**Q, "team": "t"}], 17 * MINUTE: []},
    ),
    Case(
        "EdgeQueueWithoutWorkers",
        "does not fire for a queue with no job, nor by the workers of another team",
        [
            jobs("queued", 0),
            series(names.QUEUE_WORKERS, 0, **Q),
            jobs("queued", 5, team="t"),
            series(names.QUEUE_WORKERS, 1, **Q, team="t"),
            series(names.QUEUE_WORKERS, 0, **Q, team="u"),
            jobs("running", 5, team="u"),
        ],
        {30 * MINUTE: []},
    ),
    Case(
        "EdgeQueueWaitHigh",
        "fires when the oldest job waits for more than a quarter of an hour",
        [series(names.QUEUE_OLDEST, lambda at: at, **Q, instance=api) for api in "ab"],
        {19 * MINUTE: [], 21 * MINUTE: [Q]},
    ),
    Case(
        "EdgeQueueWaitHigh",
        "does not fire for a queue that is long but moves",
        [series(names.QUEUE_OLDEST, lambda at: at % 880, **Q), jobs("queued", 4000)],
        {14 * MINUTE: [], HOUR: []},
    ),
    Case(
        "EdgeQueueSaturated",
        "fires for a queue whose slots are taken, and for one whose workers are busy with another queue's jobs",
        [jobs("queued", 2), *slots(8, 8), *busy(8, 8), jobs("queued", 1, **OTHER), *slots(0, 8, **OTHER)],
        {14 * MINUTE: [], 17 * MINUTE: [Q, OTHER]},
    ),
    Case(
        "EdgeQueueSaturated",
        "does not fire for full slots with nothing queued, for free slots, or for those of another team",
        [
            jobs("queued", 0),
            *slots(8, 8),
            jobs("queued", 3, **OTHER),
            *slots(1, 8, **OTHER),
            *busy(8, 8, team="t"),
            *worker("idle", name="free"),
            series(names.WORKER_SLOTS, 8, worker="free"),
            series(names.WORKER_SLOTS_USED, 0, worker="free"),
        ],
        {30 * MINUTE: []},
    ),
    Case(
        "EdgeJobStuckInAssignment",
        "fires when offers are made again and again, and when one is made and nothing follows",
        [
            jobs("assigned", 1),
            series(names.JOBS_ASSIGNED, lambda at: at // 30, **Q),
            jobs("assigned", 1, **OTHER),
        ],
        {3 * MINUTE: [], 12 * MINUTE: [Q, OTHER]},
    ),
    Case(
        "EdgeJobStuckInAssignment",
        "does not fire for a job every five minutes that is always scraped in its moment on offer",
        [
            jobs("assigned", lambda at: float(at % 300 == 0)),
            series(names.JOBS_ASSIGNED, lambda at: at // 300, **Q),
        ],
        {t * MINUTE: [] for t in (12, 18, 25, 35)},
    ),
    Case(
        "EdgeJobStuckInAssignment",
        "does not fire for a busy queue that always has some on offer, nor for an idle one",
        [
            jobs("assigned", 5),
            *(series(names.JOBS_ASSIGNED, lambda at: at % 1200 * 10, **Q, instance=api) for api in "ab"),
            jobs("assigned", 0, **OTHER),
            series(names.JOBS_ASSIGNED, 7, **OTHER),
        ],
        {t * MINUTE: [] for t in (10, 21, 24, 40)},
    ),
    Case(
        "EdgeFailureRatioHigh",
        "fires for a burst of failures, told by several replicas",
        [ended(kind, lambda at: max(0, at - 300) // 60, api) for kind in ("failed",) for api in "ab"]
        + [ended("success", lambda at: at // 300)],
        {5 * MINUTE: [], 20 * MINUTE: [Q]},
    ),
    Case(
        "EdgeFailureRatioHigh",
        "does not fire for a few failures, for many among more successes, or when the API restarts",
        [
            ended("failed", lambda at: at // 600),
            ended("success", 0),
            ended("failed", lambda at: at % 1200 / 20, **OTHER),
            ended("success", lambda at: at % 1200 / 2, **OTHER),
        ],
        {t * MINUTE: [] for t in (15, 22, 40)},
    ),
    Case(
        "EdgeJobsLost",
        "fires when jobs are lost, once by two replicas of which one is new, and ends half an hour later",
        [
            jobs("lost", lambda at: 1 if at < 600 else None, instance="a"),
            *(jobs("lost", lambda at: None if at < 600 else 3, instance=api) for api in "bc"),
        ],
        {9 * MINUTE: [], 12 * MINUTE: [Q], 45 * MINUTE: []},
    ),
    Case(
        "EdgeJobsLost",
        "does not fire for those lost long ago, when they are purged, or when another replica starts",
        [
            jobs("lost", lambda at: 4 if at < 1200 else 0),
            jobs("lost", lambda at: None if at < 900 else 4 if at < 1200 else 0, instance="b"),
        ],
        {t * MINUTE: [] for t in (10, 17, 25)},
    ),
]
