"""What a Collector writes to Prometheus of the workers' OTLP metrics, as a page that it can scrape instead.

Names and labels are those of ``dashboards.prometheus``, which panels are made with.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from dashboards import prometheus
from demo.otlp import Store
from demo.telemetry import Point
from edge_otel.telemetry import names


class Exposition(Collector):
    """The latest reading of each series that a store has got since this was made, on a loopback port."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._before = len(store.points())
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        self._server, self._thread = start_http_server(0, "127.0.0.1", registry)
        self.address = f"127.0.0.1:{self._server.server_port}"

    def describe(self) -> list[Metric]:
        """Name nothing beforehand."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the catalogue."""
        points = self._store.points()[self._before :]
        for metric in names.WORKER:
            latest = {_labels(metric, point): point for point in points if point.metric == metric.name}
            family = Metric(prometheus.name(metric), metric.help, "unknown")
            for labels, point in latest.items():
                for suffix, more, value in _samples(point):
                    family.add_sample(family.name + suffix, {**dict(labels), **more}, value)
            yield family

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _labels(metric: names.Metric, point: Point) -> tuple[tuple[str, str], ...]:
    carried = {**{key: point.resource.get(key, "") for key in prometheus.PROMOTED}, **point.attributes}
    return tuple(sorted((prometheus.label(key), value) for key, value in carried.items()))


def _samples(point: Point) -> Iterator[tuple[str, dict[str, str], float]]:
    if not point.buckets:
        yield "", {}, point.value
        return
    for bound, count in point.buckets.items():
        yield "_bucket", {"le": "+Inf" if bound == float("inf") else str(bound)}, count
    yield "_sum", {}, point.total
    yield "_count", {}, point.value
