"""What this process of the Edge API counts and times: one prometheus_client object for each of names.PROCESS_METRICS,
under the same constant name, in a registry of their own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from edge_otel.telemetry import context, names
from edge_otel.telemetry.context import Carrier

REGISTRY = CollectorRegistry()


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
OTLP_FORWARDED = _counter(names.OTLP_FORWARDED)
OTLP_REJECTED = _counter(names.OTLP_REJECTED)
REQUEST_SECONDS = _histogram(names.REQUEST_SECONDS)


def exemplar(carrier: Carrier) -> dict[str, str] | None:
    """Return what leads from a histogram to the trace of this context, or None where nobody records it."""
    if not context.sampled(carrier):
        return None
    trace_id, span_id = context.ids(carrier)
    return {"trace_id": trace_id, "span_id": span_id}
