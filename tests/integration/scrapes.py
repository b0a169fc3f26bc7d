"""What Prometheus reads, as tests look at it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from served import Api

from edge_otel.telemetry.names import Metric


def scrape(api: Api, **headers: str) -> str:
    """Return the metrics."""
    answer = api.call("GET", "/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.text


def samples(exposition: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return every sample of ours by its name and labels; none is there twice."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def value(exposition: str, metric: Metric, suffix: str = "", **labels: str) -> float:
    """Return one sample, 0 where there is none."""
    return samples(exposition).get((metric.name + suffix, frozenset(labels.items())), 0.0)
