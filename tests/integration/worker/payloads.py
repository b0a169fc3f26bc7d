"""OTLP requests with one item each, and what is in those that arrive."""

from __future__ import annotations

from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def payload(signal: str, name: str, size: int = 0) -> bytes:
    """Return a request with one span, metric or log record of this name; ``size`` bytes are added."""
    request: Any
    if signal == "traces":
        request = ExportTraceServiceRequest()
        item = request.resource_spans.add().scope_spans.add().spans.add(name=name)
        item.trace_state = "x" * size
    elif signal == "metrics":
        request = ExportMetricsServiceRequest()
        request.resource_metrics.add().scope_metrics.add().metrics.add(name=name, description="x" * size)
    else:
        request = ExportLogsServiceRequest()
        record = request.resource_logs.add().scope_logs.add().log_records.add(severity_text="x" * size)
        record.body.string_value = name
    return bytes(request.SerializeToString())


def names(signal: str, body: bytes) -> list[str]:
    """Return the names in a request, in order."""
    if signal == "traces":
        spans = ExportTraceServiceRequest.FromString(body).resource_spans
        return [span.name for resource in spans for scope in resource.scope_spans for span in scope.spans]
    if signal == "metrics":
        metrics = ExportMetricsServiceRequest.FromString(body).resource_metrics
        return [metric.name for resource in metrics for scope in resource.scope_metrics for metric in scope.metrics]
    logs = ExportLogsServiceRequest.FromString(body).resource_logs
    return [r.body.string_value for resource in logs for scope in resource.scope_logs for r in scope.log_records]
