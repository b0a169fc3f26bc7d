"""Spans as finished facts, and their export in the background. Nothing here can slow or break the work.

The SDK's tracer is not used: these spans are built when all is known, so that they outlive restarts with the same ids.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_otel import __version__
from edge_otel.telemetry import context, names, variables
from edge_otel.telemetry.context import Carrier
from edge_otel.telemetry.redaction import without_secrets

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger(__name__)

Values = Mapping[str, str | int | float]

CLOSE_WITHIN = 3.0
"""Seconds for the last spans to leave; the exporter's own flush does not keep its timeout."""


@dataclass(frozen=True)
class Finished:
    """One span. Times are seconds since the epoch."""

    span: names.Span
    context: Carrier
    parent: Carrier
    """Empty for a root."""
    start: float
    end: float
    attributes: Values = field(default_factory=dict)
    queue: str = ""
    error: str | None = None
    """Why it failed, in words; ``error.type`` among the attributes makes it a failure."""


def resource(service: str, **more: str) -> dict[str, str]:
    """Return who speaks; ``OTEL_RESOURCE_ATTRIBUTES`` adds to it."""
    machine = host_id()
    return {
        **({names.HOST_ID: machine} if machine else {}),
        names.SERVICE_NAMESPACE: "airflow",
        names.SERVICE_NAME: service,
        names.SERVICE_VERSION: __version__,
        names.HOST_NAME: socket.gethostname(),
        names.OS_TYPE: platform.system().lower(),
        **more,
    }


def host_id() -> str | None:
    """Return the machine's id; None where the system has none. Source: machine-id(5), dbus-uuidgen(1)."""
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if found := path.read_text().strip():
                return found
    return None


def sdk_resource(attributes: Mapping[str, str]) -> Resource:
    """Return the SDK's resource with these attributes, and what the environment adds. Loads the SDK."""
    from opentelemetry.sdk.resources import Resource

    # Explicit values win over the environment's in a merge.
    return Resource.create({}).merge(Resource(dict(attributes)))


class Recorder:
    """Exports spans. Without an exporter it does and loads nothing."""

    def __init__(self, resource: Mapping[str, str], exporter: Callable[[], SpanExporter] | None) -> None:
        self._attributes = resource
        self._exporter = None if variables.disabled(os.environ) else exporter
        self._lock = threading.Lock()
        self._processor: Any = None
        self._resource: Any = None

    @property
    def on(self) -> bool:
        """Whether spans go anywhere."""
        return self._exporter is not None

    @property
    def loaded(self) -> bool:
        """Whether recording takes no time."""
        return self._processor is not None

    def load(self) -> None:
        """Load the SDK and start the thread that exports: a tenth of a second, or more on a slow disk. Never raises:
        with an environment that the SDK refuses there are no spans."""
        with self._lock:
            if self._processor is not None or self._exporter is None:
                return
            try:
                from opentelemetry.sdk.trace.export import BatchSpanProcessor

                self._resource = sdk_resource(self._attributes)
                self._processor = BatchSpanProcessor(self._exporter())
            except Exception:
                log.exception("Spans cannot be exported.")
                self._exporter = None

    def record(self, span: Finished) -> None:
        """Hand a span over; one that is not sampled is dropped. Never raises, and blocks only to load the SDK."""
        if self._exporter is None or not context.sampled(span.context):
            return
        try:
            self.load()
            if self._processor is not None:
                self._processor.on_end(self._readable(span))
        except Exception:
            log.exception("A span %r is lost.", span.span.operation)

    def flush(self) -> None:
        """Hand everything to the exporter before this returns; as slow as that is."""
        if self._processor is not None:
            self._processor.force_flush()

    def close(self) -> None:
        """Send what is left, for a bounded time."""
        if self._processor is None:
            return
        last = threading.Thread(target=self._processor.force_flush, name="last-spans", daemon=True)
        last.start()
        last.join(CLOSE_WITHIN)

    def _readable(self, span: Finished) -> ReadableSpan:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import SpanKind, Status, StatusCode

        failed = names.ERROR_TYPE in span.attributes
        error = None if span.error is None else without_secrets(span.error)
        return ReadableSpan(
            name=span.span.named(span.queue),
            context=_context(span.context),
            parent=_context(span.parent) if context.valid(span.parent) else None,
            resource=self._resource,
            attributes=dict(span.attributes),
            kind=SpanKind[span.span.kind],
            status=Status(StatusCode.ERROR, error) if failed else Status(StatusCode.UNSET),
            start_time=int(span.start * 1e9),
            end_time=int(max(span.start, span.end) * 1e9),
            instrumentation_scope=InstrumentationScope("edge_otel", __version__),
        )


def _context(carrier: Carrier) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags, TraceState

    trace, span = context.ids(carrier)
    state = TraceState.from_header([carrier["tracestate"]]) if "tracestate" in carrier else None
    return SpanContext(int(trace, 16), int(span, 16), True, TraceFlags(TraceFlags.SAMPLED), state)
