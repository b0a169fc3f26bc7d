"""What the OpenTelemetry SDK hands its data to in the daemon: it goes to the outbox. Importing this loads the SDK."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from edge_worker.outbox import Outbox


class OutboxSpans(SpanExporter):
    """Spans; what the outbox drops, it counts."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Hand spans over."""
        self._outbox.put("traces", encode_spans(spans).SerializeToString())
        return SpanExportResult.SUCCESS
