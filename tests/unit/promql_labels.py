"""Which labels the result of a query has, by the labels that names.py gives its metrics.

A query that names a metric or a label that does not exist, or compares what cannot match, is an AssertionError.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import promql_parser as promql

from dashboards import prometheus
from edge_otel.telemetry import names

Labels = frozenset[str]
NONE: Labels = frozenset()
SCRAPED = frozenset({"job", "instance"})
_SETS = {"and", "or", "unless"}


def known() -> dict[str, Labels]:
    """Return the labels of everything that Prometheus has of us, and of its own series that are used."""
    series = {"up": SCRAPED, "scrape_duration_seconds": SCRAPED}
    for metric in names.METRICS:
        name, labels = prometheus.name(metric), SCRAPED | frozenset(prometheus.labels(metric))
        parts = {"_bucket": labels | {"le"}, "_sum": labels, "_count": labels}
        series |= {f"{name}{part}": of for part, of in parts.items()} if metric.kind == "histogram" else {name: labels}
    return series


def labels(query: str, series: Mapping[str, Labels]) -> Labels:
    """Return the labels of the result of a query."""
    return _labels(promql.parse(query), series)


def _labels(node: Any, series: Mapping[str, Labels]) -> Labels:
    match node:
        case promql.NumberLiteral() | promql.StringLiteral():
            return NONE
        case promql.ParenExpr() | promql.UnaryExpr():
            return _labels(node.expr, series)
        case promql.VectorSelector():
            assert node.name in series, f"no such metric: {node.name}"
            matched = {matcher.name for matcher in node.matchers.matchers}
            assert matched <= series[node.name], f"{node.name} has no label {matched - series[node.name]}"
            return series[node.name]
        case promql.MatrixSelector():
            return _labels(node.vector_selector, series)
        case promql.AggregateExpr():
            inner = _labels(node.expr, series)
            by = frozenset(node.modifier.labels if node.modifier else ())
            assert by <= inner, f"{by - inner} is not in what {node} aggregates"
            return by
        case promql.Call():
            return _of_call(node, series)
        case promql.BinaryExpr():
            return _of_both(node, series)
    raise AssertionError(f"not expected in a query here: {node}")


def _of_call(node: Any, series: Mapping[str, Labels]) -> Labels:
    inner = [_labels(argument, series) for argument in node.args]
    match node.func.name:
        case "time" | "vector" | "absent" | "scalar":
            return NONE
        case "label_replace":
            made, source = (node.args[position].val for position in (1, 3))
            assert not source or source in inner[0], f"label_replace of {source}, which is not there"
            return inner[0] | {made}
        case "histogram_quantile":
            assert "le" in inner[1], f"no le in {node}"
            return inner[1] - {"le"}
    return frozenset().union(*inner)


def _of_both(node: Any, series: Mapping[str, Labels]) -> Labels:
    left, right = _labels(node.lhs, series), _labels(node.rhs, series)
    if _is_scalar(node.lhs) or _is_scalar(node.rhs):
        return left | right
    matching = node.modifier.matching if node.modifier else None
    if matching is None:
        either = str(node.op).strip() == "or"
        assert either or left == right, f"never match: {sorted(left)} and {sorted(right)} in {node}"
        return left | right
    named = frozenset(matching.labels)
    if "Include" in str(matching.type):
        assert named <= left & right, f"{named - (left & right)} is not on both sides of {node}"
        return left if str(node.op).strip() in _SETS else named
    assert left - named == right - named, f"never match: {sorted(left)} and {sorted(right)} in {node}"
    return left if str(node.op).strip() in _SETS else left - named


def _is_scalar(node: Any) -> bool:
    match node:
        case promql.ParenExpr() | promql.UnaryExpr():
            return _is_scalar(node.expr)
        case promql.BinaryExpr():
            return _is_scalar(node.lhs) and _is_scalar(node.rhs)
        case promql.Call():
            return node.func.name in ("time", "scalar")
    return isinstance(node, promql.NumberLiteral)
