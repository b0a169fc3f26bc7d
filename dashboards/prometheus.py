"""PromQL from the metrics of names.py: what panels and rules are made of, and the names of OTLP metrics in Prometheus.

Metrics of the fleet come from the database, and every replica says the same: ``latest`` and ``total``. Counters and
histograms are those of one process: ``rate``, ``increase`` and ``quantile``. A label that the metric does not have is a
ValueError, so a query cannot name what does not exist::

    latest(names.QUEUE_WORKERS, "queue", team="=~$team")    max by (queue) (edge_queue_workers{team=~"$team"})
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from edge_otel.telemetry import names

RATE = "$__rate_interval"
"""Grafana's window for rates, at least four scrapes; rules name a window of their own."""
RANGE = "$__range"
"""Grafana's whole time range."""
PROMOTED = (names.WORKER_NAME,)
"""Resource attributes that become labels of a worker's OTLP metrics: whatever writes them to Prometheus is told so."""

_UNITS = {"s": "seconds", "ms": "milliseconds", "By": "bytes", "1": ""}
_PARTS = {"histogram": ("_bucket", "_sum", "_count")}
_MATCHER = re.compile(r"(=~|!~|!=|=)(.*)", re.DOTALL)


def name(metric: names.Metric) -> str:
    """Return what the metric is called in Prometheus. Those of a worker come by OTLP and have their names flattened.

    That is the translation UnderscoreEscapingWithSuffixes, the default of Prometheus' OTLP receiver and of the
    Collector's Prometheus exporters: https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
    """
    if metric not in names.WORKER:
        return metric.name
    words = [word for word in re.split(r"[^a-zA-Z0-9:]+", metric.name) if word]
    unit = "" if metric.unit.startswith("{") else _UNITS[metric.unit]
    if unit and unit not in words:
        words.append(unit)
    if metric.kind == "counter":
        words.append("total")
    elif metric.kind == "gauge" and metric.unit == "1":
        words.append("ratio")
    return "_".join(words)


def label(attribute: str) -> str:
    """Return the label that an attribute becomes."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", attribute)


def labels(metric: names.Metric) -> tuple[str, ...]:
    """Return the labels of the metric in Prometheus, beside those of the scrape and a histogram's ``le``."""
    return tuple(map(label, (*metric.labels, *(PROMOTED if metric in names.WORKER else ()))))


def series(metric: names.Metric, part: str = "", window: str = "", **where: str) -> str:
    """Return a selector. ``part``: ``_bucket``, ``_sum`` or ``_count`` of a histogram. ``where``: by label, an operator
    and its value, such as ``state="=queued"`` or ``queue="=~$queue"``."""
    if part not in _PARTS.get(metric.kind, ("",)):
        raise ValueError(f"{metric.name} is a {metric.kind}: no {part or 'value of its own'}")
    _check(metric, where)
    matchers = ",".join(f"{key}{_matcher(said)}" for key, said in where.items())
    selector = f"{name(metric)}{part}" + (f"{{{matchers}}}" if matchers else "")
    return f"{selector}[{window}]" if window else selector


def latest(metric: names.Metric, *by: str, **where: str) -> str:
    """Return a gauge that every replica tells alike, by these labels."""
    return _by("max", metric, by, series(metric, **where))


def total(metric: names.Metric, *by: str, **where: str) -> str:
    """Return the sum, by these labels, of a gauge that every replica tells alike."""
    return _by("sum", metric, by, latest(metric, *labels(metric), **where))


def rate(metric: names.Metric, *by: str, part: str = "", window: str = RATE, **where: str) -> str:
    """Return how much a counter grows in a second, over all processes, by these labels."""
    return _by("sum", metric, by, f"rate({series(metric, part, window, **where)})")


def increase(metric: names.Metric, *by: str, part: str = "", window: str = RATE, **where: str) -> str:
    """Return how much a counter grew in the window, over all processes, by these labels."""
    return _by("sum", metric, by, f"increase({series(metric, part, window, **where)})")


def quantile(share: float, metric: names.Metric, *by: str, window: str = RATE, **where: str) -> str:
    """Return the value under which this share, 0 to 1, of what a histogram counted lies."""
    rates = f"rate({series(metric, '_bucket', window, **where)})"
    return f"histogram_quantile({share}, {_by('sum', metric, (*by, 'le'), rates)})"


def heartbeat_age(**where: str) -> str:
    """Return for how many seconds each worker had not been heard at the last scrape, by worker and team: what has
    passed since is no silence of the worker's."""
    heard = series(names.WORKER_LAST_HEARTBEAT, **where)
    return _by("min", names.WORKER_LAST_HEARTBEAT, ("worker", "team"), f"timestamp({heard}) - {heard}")


def stale(intervals: float, **where: str) -> str:
    """Return the age of the last heartbeat where it is more than so many of the intervals that the worker was told."""
    told = latest(names.WORKER_HEARTBEAT_INTERVAL, "worker", "team", **where)
    return f"{heartbeat_age(**where)} > {intervals:g} * {told}"


def in_state(*states: str, **where: str) -> str:
    """Return 1 for each worker in one of these states, by worker and team; nothing for the others."""
    if unknown := set(states) - set(names.STATE_CODES):
        raise ValueError(f"no such state: {', '.join(sorted(unknown))}")
    return f"{latest(names.WORKER_STATES, 'worker', 'team', **where, state='=~' + '|'.join(states))} == 1"


def state_from(at_least: int, below: float = math.inf, **where: str) -> str:
    """Return the code of each worker whose state is in this range, by worker and team: 0 takes jobs, from 10 in
    maintenance, from 20 leaving, from 30 gone."""
    code = f"{latest(names.WORKER_STATE_CODE, 'worker', 'team', **where)} >= {at_least}"
    return code if below == math.inf else f"{code} < {below:g}"


def scraped() -> str:
    """Return 1 for each target that Prometheus reads the fleet's metrics from, 0 while it cannot: ``up`` of the scrape
    jobs that told them within a day, whatever they are called."""
    return f"up and on (job, instance) last_over_time({series(names.SNAPSHOT_AGE, window='1d')})"


def _by(function: str, metric: names.Metric, by: tuple[str, ...], inner: str) -> str:
    _check(metric, by)
    return f"{function} by ({', '.join(by)}) ({inner})" if by else f"{function}({inner})"


def _check(metric: names.Metric, used: Iterable[str]) -> None:
    known = {*labels(metric), "job", "instance", *(("le",) if metric.kind == "histogram" else ())}
    if unknown := set(used) - known:
        raise ValueError(f"{metric.name} has no label {', '.join(sorted(unknown))}")


def _matcher(said: str) -> str:
    parsed = _MATCHER.fullmatch(said)
    if parsed is None:
        raise ValueError(f"{said!r} does not begin with an operator")
    operator, value = parsed.groups()
    escaped = value.replace("\\", r"\\").replace('"', r"\"")
    return f'{operator}"{escaped}"'
