"""The fleet as Prometheus metrics: a snapshot of the database turned into the text of names.FLEET. Pure.

The text is written here: prometheus_client would hold the interpreter for two thirds of a second at each scrape of 2000
workers, and with it the channels. All are gauges, and of those the Prometheus and the OpenMetrics format are the same.

What workers say of themselves is not trusted: a value out of its range is left out, texts are cut, and the number of
facts is what the wire lets through, 64 for each worker.
"""

from __future__ import annotations

import math
from collections import Counter
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
    sysinfo: Mapping[str, Any]
    maintenance_origin: str | None
    connection: str | None
    heartbeat_interval: float
    last_heartbeat: datetime


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


def _of_queues(snapshot: Snapshot) -> Iterator[Family]:
    groups = {(group.queue, group.team, group.state): group for group in snapshot.jobs}
    takers: Counter[tuple[str | None, str | None]] = Counter()
    slots: Counter[tuple[str | None, str | None]] = Counter()
    queues = {(group.queue, group.team) for group in snapshot.jobs}
    for worker in snapshot.workers:
        queues.update((queue, worker.team) for queue in worker.queues or ())
        heard = worker.last_heartbeat > silent_since(snapshot.at, worker.heartbeat_interval)
        # The scheduler, which makes it unknown, may be silent as well.
        if worker.state in TAKES_JOBS and heard:
            # None stands for every queue of the team.
            for queue in {None} if worker.queues is None else set(worker.queues):
                takers[queue, worker.team] += 1
                slots[queue, worker.team] += _slots(worker)
    known = sorted((queue, team or "", team) for queue, team in queues)
    nothing = Jobs("", None, "", 0, 0, snapshot.at)

    def jobs(queue: str, team: str | None, state: JobState) -> Jobs:
        return groups.get((queue, team, state), nothing)

    yield names.JOBS, [((q, label, s.value), jobs(q, t, s).jobs) for q, label, t in known for s in JobState]
    oldest = [((q, label), jobs(q, t, JobState.QUEUED).oldest) for q, label, t in known]
    yield names.QUEUE_OLDEST, [(labels, max(0.0, (snapshot.at - since).total_seconds())) for labels, since in oldest]
    yield names.QUEUE_WORKERS, [((q, label), takers[q, t] + takers[None, t]) for q, label, t in known]
    yield names.QUEUE_SLOTS, [((q, label), slots[q, t] + slots[None, t]) for q, label, t in known]
    used = [((q, label), sum(jobs(q, t, s).slots for s in HELD)) for q, label, t in known]
    yield names.QUEUE_SLOTS_USED, used


def _slots(worker: Worker) -> int:
    return (worker.slots if worker.slots_wanted is None else worker.slots_wanted) or 0


def _number(said: object) -> float | None:
    if isinstance(said, bool) or not isinstance(said, int | float) or not abs(said) < 1e300:
        return None
    return float(said)


def _text(said: object) -> str:
    # What is no UTF-8 would fail the whole answer.
    return "" if said is None else str(said)[:MAX_TEXT].encode(errors="replace").decode()
