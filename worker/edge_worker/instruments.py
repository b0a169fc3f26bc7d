"""The worker's metrics as instruments of the OpenTelemetry SDK, which importing this loads.

The SDK's own periodic reader is not used: its interval is fixed, and it starts again in forked children.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, MetricsData

from edge_otel import __version__
from edge_otel.telemetry import names
from edge_otel.telemetry.spans import sdk_resource
from edge_worker.readings import Readings

EVENTS = (names.HEARTBEAT_SECONDS, names.LAUNCH_SECONDS, names.RECONNECTS)
"""Told when they happen; all others are read."""


class _Reader(MetricReader):
    """Collects when it is told to, cumulatively."""

    def __init__(self, take: Callable[[bytes], object]) -> None:
        super().__init__()
        self._take = take

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        if metrics_data.resource_metrics:
            self._take(encode_metrics(metrics_data).SerializeToString())

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing runs."""


class Instruments:
    """One for each of ``names.WORKER``."""

    def __init__(self, resource: Mapping[str, str], take: Callable[[bytes], object]) -> None:
        """``take`` gets each serialized ExportMetricsServiceRequest."""
        self._readings: Readings = {}
        self._reader = _Reader(take)
        provider = MeterProvider([self._reader], sdk_resource(resource), shutdown_on_exit=False)
        meter = provider.get_meter("edge_otel", __version__)
        self._events: dict[names.Metric, Callable[[float, Mapping[str, str]], None]] = {}
        for metric in names.WORKER:
            about = {"name": metric.name, "unit": metric.unit, "description": metric.help}
            if metric not in EVENTS:
                kind = {"updowncounter": "up_down_counter"}.get(metric.kind, metric.kind)
                getattr(meter, f"create_observable_{kind}")(callbacks=[self._reading(metric)], **about)
            elif metric.kind == "histogram":
                bounds = list(metric.buckets)
                self._events[metric] = meter.create_histogram(
                    explicit_bucket_boundaries_advisory=bounds, **about
                ).record
            else:
                self._events[metric] = meter.create_counter(**about).add

    def tell(self, metric: names.Metric, value: float, attributes: Mapping[str, str]) -> None:
        """Record an event."""
        self._events[metric](value, attributes)

    def export(self, readings: Readings) -> None:
        """Hand over these readings, and all that was told since the start, as of now."""
        self._readings = readings
        self._reader.collect()

    def _reading(self, metric: names.Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(options: CallbackOptions) -> Iterable[Observation]:
            return [Observation(value, attributes) for value, attributes in self._readings.get(metric, ())]

        return read
