"""The fleet as Prometheus metrics: a snapshot of the database turned into the text of names.FLEET. Pure.

The text is written here: prometheus_client would hold the interpreter for two thirds of a second at each scrape of 2000
workers, and with it the channels. All are gauges, and of those the Prometheus and the OpenMetrics format are the same.

What workers say of themselves is not trusted: a value out of its range is left out, texts are cut, and the number of
facts is what the wire lets through, 64 for each worker.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from edge_otel.reconcile import silent_since
from edge_otel.state import GONE, IN_MAINTENANCE, TAKES_JOBS, JobState, WorkerState
from edge_otel.telemetry import names
from edge_otel.wire import OWN_FACTS

HELD = (JobState.ASSIGNED, JobState.RUNNING)
"""States in which a job holds slots of its worker."""
MAX_TEXT = 64
"""Characters of a label value that a worker chose."""


class Worker(NamedTuple):
    """One worker as it is stored; the names are those of its table."""

    name: str
    state: str
    team: str | None
    queues: list[str] | None
    slots: int | None
    slots_wanted: int | None
    maintenance_origin: str | None
    connection: str | None
    heartbeat_interval: float
    last_heartbeat: datetime
    sysinfo: Mapping[str, Any]
    """The last, for whoever goes without: it is the longest."""


class Jobs(NamedTuple):
    """Jobs of one queue and team in one state."""

    queue: str
    team: str | None
    state: str
    jobs: int
    slots: int
    oldest: datetime
    """When the first of them was queued."""


class Snapshot(NamedTuple):
    """What the database says of the fleet at one time."""

    at: datetime
    workers: Sequence[Worker]
    jobs: Sequence[Jobs]
    used: Mapping[str | None, int]
    """Slots held by assigned and running jobs, by worker; none are left out."""


Family = tuple[names.Metric, Sequence[tuple[Sequence[str], float]]]
"""A metric with its samples: label values and a number."""


class _Number(NamedTuple):
    """A number in the worker's facts that is a metric of its own."""

    metric: names.Metric
    scale: float = 1.0
    at_least: float = 0.0
    at_most: float = math.inf


_NUMBERS = {
    "cpu_percent": _Number(names.WORKER_CPU, 0.01, at_most=1.0),
    "memory_percent": _Number(names.WORKER_MEMORY, 0.01, at_most=1.0),
    "disk_percent": _Number(names.WORKER_DISK, 0.01, at_most=1.0),
    "load1": _Number(names.WORKER_LOAD),
    "clock_skew": _Number(names.WORKER_CLOCK_SKEW, at_least=-math.inf),
    "log_backlog": _Number(names.WORKER_LOG_BACKLOG),
    "outbox_size": _Number(names.WORKER_OUTBOX),
    "outbox_dropped": _Number(names.WORKER_DROPPED),
}
_INFO = ("edge_provider_version", "airflow_version", "python_version", "os")


def text(families: Iterable[Family]) -> str:
    """Return the exposition of these metrics. Format: https://prometheus.io/docs/instrumenting/exposition_formats/"""
    lines: list[str] = []
    for metric, samples in families:
        lines.append(f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n")
        form = ",".join(f'{label}="%s"' for label in metric.labels)
        head = f"{metric.name}{{{form}}} %s\n" if form else f"{metric.name} %s\n"
        lines += [head % (*map(_escaped, labels), value) for labels, value in samples]
    return "".join(lines)


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def families(snapshot: Snapshot) -> Iterator[Family]:
    """Return every metric of names.FLEET but the snapshot's age."""
    yield from _of_workers(snapshot)
    yield from _of_facts(snapshot.workers)
    yield from _of_queues(snapshot)


def age(seconds: float) -> Family:
    """Return how old the snapshot is."""
    return names.SNAPSHOT_AGE, [((), seconds)]


def _of_workers(snapshot: Snapshot) -> Iterator[Family]:
    workers = [(worker, (worker.name, worker.team or "")) for worker in snapshot.workers]
    states = [state.value for state in WorkerState]
    yield names.WORKER_STATES, [((*who, state), int(w.state == state)) for w, who in workers for state in states]
    yield names.WORKER_STATE_CODE, [(who, names.STATE_CODES[w.state]) for w, who in workers]
    count = Counter((w.state, team) for w, (_, team) in workers)
    teams = sorted({team for _, (_, team) in workers} | {""})
    yield names.WORKER_COUNT, [((state, team), count[state, team]) for team in teams for state in states]
    yield names.WORKER_LAST_HEARTBEAT, [(who, w.last_heartbeat.timestamp()) for w, who in workers]
    yield names.WORKER_HEARTBEAT_INTERVAL, [(who, w.heartbeat_interval) for w, who in workers]
    connected = [(who, int(w.connection is not None and w.state not in GONE)) for w, who in workers]
    yield names.WORKER_CONNECTED, connected
    yield names.WORKER_SLOTS, [(who, _slots(w)) for w, who in workers]
    yield names.WORKER_SLOTS_USED, [(who, snapshot.used.get(w.name, 0)) for w, who in workers]
    yield names.WORKER_INFO, [((w.name, *(_text(w.sysinfo.get(key)) for key in _INFO)), 1) for w, _ in workers]
    parked = [(w, who) for w, who in workers if w.state in IN_MAINTENANCE]
    yield names.WORKER_MAINTENANCE, [((*who, w.maintenance_origin or "local"), 1) for w, who in parked]


def _of_facts(workers: Sequence[Worker]) -> Iterator[Family]:
    for key, kind in _NUMBERS.items():
        values = [
            ((w.name,), number * kind.scale) for w in workers if (number := _number(w.sysinfo.get(key))) is not None
        ]
        yield kind.metric, [(who, value) for who, value in values if kind.at_least <= value <= kind.at_most]
    facts = {
        (worker.name, _text(key)): number
        for worker in workers
        for key, said in worker.sysinfo.items()
        if key not in OWN_FACTS and (number := _number(said)) is not None
    }
    yield names.WORKER_FACT, list(facts.items())


class Queue(NamedTuple):
    """A queue of one team: its jobs, and who serves it."""

    queue: str
    team: str | None
    jobs: Mapping[str, int]
    """By state; those without jobs are left out."""
    oldest: datetime | None
    """When the first of the queued jobs was queued."""
    workers: int
    """That serve it and take jobs, also beside other queues."""
    slots: int
    """Of those workers."""
    slots_used: int
    """Held by jobs of this queue."""


def queues(snapshot: Snapshot) -> list[Queue]:
    """Return the queues that have jobs, or that a worker names, in order."""
    groups: dict[tuple[str, str | None], list[Jobs]] = defaultdict(list)
    for group in snapshot.jobs:
        groups[group.queue, group.team].append(group)
    takers: Counter[tuple[str | None, str | None]] = Counter()
    slots: Counter[tuple[str | None, str | None]] = Counter()
    for worker in snapshot.workers:
        for queue in worker.queues or ():
            groups[queue, worker.team] += []
        heard = worker.last_heartbeat > silent_since(snapshot.at, worker.heartbeat_interval)
        # The scheduler, which makes it unknown, may be silent as well.
        if worker.state in TAKES_JOBS and heard:
            # None stands for every queue of the team.
            for served in {None} if worker.queues is None else set(worker.queues):
                takers[served, worker.team] += 1
                slots[served, worker.team] += _slots(worker)
    return [
        Queue(
            queue,
            team,
            {group.state: group.jobs for group in jobs},
            min((group.oldest for group in jobs if group.state == JobState.QUEUED), default=None),
            takers[queue, team] + takers[None, team],
            slots[queue, team] + slots[None, team],
            sum(group.slots for group in jobs if group.state in HELD),
        )
        for (queue, team), jobs in sorted(groups.items(), key=lambda item: (item[0][0], item[0][1] or ""))
    ]


def _of_queues(snapshot: Snapshot) -> Iterator[Family]:
    known = [(q, (q.queue, q.team or "")) for q in queues(snapshot)]
    yield names.JOBS, [((*labels, s.value), q.jobs.get(s, 0)) for q, labels in known for s in JobState]
    ages = [(labels, 0.0 if q.oldest is None else (snapshot.at - q.oldest).total_seconds()) for q, labels in known]
    yield names.QUEUE_OLDEST, [(labels, max(0.0, age)) for labels, age in ages]
    yield names.QUEUE_WORKERS, [(labels, q.workers) for q, labels in known]
    yield names.QUEUE_SLOTS, [(labels, q.slots) for q, labels in known]
    yield names.QUEUE_SLOTS_USED, [(labels, q.slots_used) for q, labels in known]


def _slots(worker: Worker) -> int:
    return (worker.slots if worker.slots_wanted is None else worker.slots_wanted) or 0


def _number(said: object) -> float | None:
    if isinstance(said, bool) or not isinstance(said, int | float) or not abs(said) < 1e300:
        return None
    return float(said)


def _text(said: object) -> str:
    # What is no UTF-8 would fail the whole answer.
    return "" if said is None else str(said)[:MAX_TEXT].encode(errors="replace").decode()
