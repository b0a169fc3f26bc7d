"""Where the central side sends telemetry: its own spans, and what the gateway passes on for the workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_otel.errors import ConfigurationInvalid
from edge_otel.settings import Settings
from edge_otel.telemetry import spans, variables

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

EXPORT_WITHIN = 10.0
"""Seconds for one export of this process's own spans."""


@dataclass(frozen=True)
class Collector:
    """An OTLP/HTTP endpoint: its base URL, below which ``/v1/traces`` and the others are, and headers for it."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def collector(settings: Settings, environment: Mapping[str, str]) -> Collector | None:
    """Return the collector: ``[edge] otlp_endpoint``, else that of the standard variables, unless those say gRPC.

    Raises ConfigurationInvalid where its headers cannot be sent.
    """
    # The exporter of this process's spans adds these in every case.
    standard, _ = (
        _headers(name, environment.get(name, ""))
        for name in ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
    )
    if settings.otlp_endpoint:
        return Collector(settings.otlp_endpoint.rstrip("/"), _headers("[edge] otlp_headers", settings.otlp_headers))
    url = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    if not url or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf") != "http/protobuf":
        return None
    return Collector(url.rstrip("/"), standard)


def _headers(option: str, text: str) -> dict[str, str]:
    headers = variables.headers(text)
    if not variables.can_be_sent(headers):
        # Without the value, which is a secret.
        raise ConfigurationInvalid(f"{option}: a name or value has characters that no HTTP header may have.")
    return headers


def recorder(service: str, to: Collector | None) -> spans.Recorder:
    """Return what exports this process's spans to the collector, or nowhere."""

    def exporter() -> SpanExporter:
        assert to is not None
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(f"{to.url}/v1/traces", headers=dict(to.headers), timeout=EXPORT_WITHIN)

    return spans.Recorder(spans.resource(service), exporter if to is not None else None)
