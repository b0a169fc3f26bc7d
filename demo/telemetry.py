"""Received metrics and log records, and what can be read from them: pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from edge_otel.telemetry import names


@dataclass(frozen=True)
class Point:
    """One reading of one series as a receiver got it; the time is in nanoseconds since 1970."""

    metric: str
    unit: str
    kind: str
    """gauge, counter, updowncounter or histogram."""
    value: float
    """Of a histogram: the number of its observations."""
    time: int
    total: float = 0.0
    """Of a histogram: the sum of its observations."""
    buckets: dict[float, int] = field(default_factory=dict)
    """Of a histogram: how many observations were up to each bound; the last is infinity."""
    attributes: dict[str, str] = field(default_factory=dict)
    resource: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """One log record as a receiver got it; ids are hexadecimal."""

    body: str
    severity: str
    trace_id: str
    span_id: str
    time: int
    attributes: dict[str, str] = field(default_factory=dict)
    resource: dict[str, str] = field(default_factory=dict)


def decode_metrics(body: bytes) -> list[Point]:
    """Return the readings of an OTLP/HTTP protobuf body."""
    found = []
    for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        about = texts(resource.resource.attributes)
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                data = getattr(metric, metric.WhichOneof("data"))
                for point in data.data_points:
                    found.append(
                        Point(
                            metric=metric.name,
                            unit=metric.unit,
                            kind=_kind(metric),
                            value=_value(point),
                            time=point.time_unix_nano,
                            total=getattr(point, "sum", 0.0),
                            buckets=_buckets(point),
                            attributes=texts(point.attributes),
                            resource=about,
                        )
                    )
    return found


def _buckets(point: Any) -> dict[float, int]:
    if not hasattr(point, "bucket_counts"):
        return {}
    return dict(zip([*point.explicit_bounds, math.inf], accumulate(point.bucket_counts), strict=True))


def _kind(metric: Any) -> str:
    kind = metric.WhichOneof("data")
    if kind != "sum":
        return str(kind)
    return "counter" if metric.sum.is_monotonic else "updowncounter"


def _value(point: Any) -> float:
    if not hasattr(point, "as_int"):
        return float(point.count)
    return float(getattr(point, point.WhichOneof("value")))


def decode_logs(body: bytes) -> list[Record]:
    """Return the records of an OTLP/HTTP protobuf body."""
    return [
        Record(
            body=record.body.string_value,
            severity=record.severity_text,
            trace_id=record.trace_id.hex(),
            span_id=record.span_id.hex(),
            time=record.time_unix_nano,
            attributes=texts(record.attributes),
            resource=texts(resource.resource.attributes),
        )
        for resource in ExportLogsServiceRequest.FromString(body).resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


def texts(attributes: Iterable[Any]) -> dict[str, str]:
    """Return attributes with their values as text."""
    return {item.key: text(item.value) for item in attributes}


def text(value: Any) -> str:
    """Return a value as text; empty for none."""
    kind = value.WhichOneof("value")
    return "" if kind is None else str(getattr(value, kind))


def latest(points: Iterable[Point], worker: str) -> dict[tuple[str, str], Point]:
    """Return a worker's last reading of each series, by metric and attributes in words, in order."""
    mine = sorted((p for p in points if p.resource.get(names.WORKER_NAME) == worker), key=lambda p: p.time)
    found = {(p.metric, " ".join(f"{k}={v}" for k, v in sorted(p.attributes.items()))): p for p in mine}
    return dict(sorted(found.items()))


def lines(points: Iterable[Point], worker: str, shown: Iterable[str]) -> Iterator[str]:
    """Yield a line for each series of these metrics."""
    wanted = set(shown)
    for (metric, attributes), point in latest(points, worker).items():
        if metric in wanted:
            value = f"{point.value / 1e6:,.1f} MB" if point.unit == "By" else f"{point.value:.2f}"
            yield f"{metric:<26} {value:>14}  {attributes}"
