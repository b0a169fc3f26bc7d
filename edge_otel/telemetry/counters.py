"""What this process of the Edge API counts and times: one prometheus_client object for each of names.PROCESS_METRICS,
under the same constant name, in a registry of their own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from edge_otel.state import FINISHED, JobState, Verdict
from edge_otel.telemetry import context, names
from edge_otel.telemetry.context import Carrier

REGISTRY = CollectorRegistry()
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Variable that names the folder in which the processes of one server count together; then there are no exemplars."""
if os.environ.get(SHARED_FOLDER):
    # A metric opens its file as soon as it is made: without the folder all of Airflow's API server would not start.
    Path(os.environ[SHARED_FOLDER]).mkdir(parents=True, exist_ok=True)


def _counter(metric: names.Metric) -> Counter:
    return Counter(metric.name, metric.help, metric.labels, registry=REGISTRY)


def _histogram(metric: names.Metric) -> Histogram:
    return Histogram(metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=REGISTRY)


JOB_QUEUE_SECONDS = _histogram(names.JOB_QUEUE_SECONDS)
JOB_RUN_SECONDS = _histogram(names.JOB_RUN_SECONDS)
JOBS_ASSIGNED = _counter(names.JOBS_ASSIGNED)
JOBS_FINISHED = _counter(names.JOBS_FINISHED)
JOBS_REQUEUED = _counter(names.JOBS_REQUEUED)
JOBS_STALE = _counter(names.JOBS_STALE)
HEARTBEATS = _counter(names.HEARTBEATS)
CHANNEL_MESSAGES = _counter(names.CHANNEL_MESSAGES)
# Of the processes that live, where several share a folder; set, never counted up, so that no end is forgotten.
CHANNEL_CONNECTIONS = Gauge(
    names.CHANNEL_CONNECTIONS.name, names.CHANNEL_CONNECTIONS.help, registry=REGISTRY, multiprocess_mode="livesum"
)
CHANNEL_DISCONNECTS = _counter(names.CHANNEL_DISCONNECTS)
LOG_BYTES_STORED = _counter(names.LOG_BYTES_STORED)
LOG_GAPS = _counter(names.LOG_GAPS)
LOG_UPLOADS = _counter(names.LOG_UPLOADS)
LOG_RECORDS = _counter(names.LOG_RECORDS)
# From 0 on, so that the first failure is an increase.
for _outcome in ("done", "found", "failed"):
    LOG_UPLOADS.labels(_outcome)
for _outcome in ("sent", "refused"):
    LOG_RECORDS.labels(_outcome)
OTLP_FORWARDED = _counter(names.OTLP_FORWARDED)
OTLP_REJECTED = _counter(names.OTLP_REJECTED)
REQUEST_SECONDS = _histogram(names.REQUEST_SECONDS)


def assigned(queue: str, carrier: Carrier, queued_at: datetime, now: datetime) -> None:
    """Count a job that is offered to a worker."""
    JOBS_ASSIGNED.labels(queue).inc()
    for outcome in (JobState.SUCCESS, JobState.FAILED):
        # From 0 on, so that the first failures of a queue are an increase.
        JOBS_FINISHED.labels(queue, outcome.value)
    waited = max(0.0, (now - queued_at).total_seconds())
    JOB_QUEUE_SECONDS.labels(queue).observe(waited, exemplar(carrier))


def reported(
    state: JobState, verdict: Verdict, *, queue: str, carrier: Carrier, ran: float | None = None, why: str = ""
) -> None:
    """Count what became of a report on a job. ``ran``: seconds from its acceptance to its end; ``why``: it went back to
    the queue."""
    if verdict is Verdict.STALE:
        JOBS_STALE.labels(queue).inc()
    elif verdict is Verdict.STORED and state is JobState.QUEUED:
        JOBS_REQUEUED.labels(queue, why).inc()
    elif verdict is Verdict.STORED and state in FINISHED:
        JOBS_FINISHED.labels(queue, state.value).inc()
        if ran is not None:
            JOB_RUN_SECONDS.labels(queue, state.value).observe(max(0.0, ran), exemplar(carrier))


def exemplar(carrier: Carrier) -> dict[str, str] | None:
    """Return what leads from a histogram to the trace of this context, or None where nobody records it."""
    carrier = context.valid(carrier)
    if not context.sampled(carrier):
        return None
    trace_id, span_id = context.ids(carrier)
    return {"trace_id": trace_id, "span_id": span_id}


class _Every(Collector):
    """What is counted here, or by all processes that share a folder."""

    def collect(self) -> Iterator[Metric]:
        """Return the metrics of the catalogue, each once."""
        found = {family.name: family for family in REGISTRY.collect()}
        folder = Path(os.environ.get(SHARED_FOLDER) or os.devnull)
        if folder.is_dir():
            _forget_ended(folder)
            shared: Iterable[Metric] = MultiProcessCollector(None, str(folder)).collect()  # type: ignore[no-untyped-call]
            # Others may use the folder as well.
            found |= {family.name: family for family in shared if family.name in found}
        for family in found.values():
            # When a counter began is a series of its own that the catalogue does not have.
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


def every() -> Collector:
    """Return what is counted, for an encoder of prometheus_client."""
    return _Every()


def _forget_ended(folder: Path) -> None:
    """Remove the gauges that processes left behind which have ended: one that was killed cannot do it itself."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        try:
            if pid.isdecimal():
                os.kill(int(pid), 0)
        except ProcessLookupError:
            file.unlink(missing_ok=True)
        except OSError:
            pass
