"""The daemon's status as Prometheus reads it. Format: Prometheus' text-based format, version 0.0.4."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edge_otel.telemetry import names

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[names.Metric, float, tuple[str, ...]]


def exposition(status: dict[str, Any]) -> str:
    """Return the metrics of a status; the same metric's samples stay together."""
    lines: list[str] = []
    told: set[str] = set()
    for metric, value, labels in _samples(status):
        if metric.name not in told:
            told.add(metric.name)
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
        named = ",".join(f'{name}="{_escaped(text)}"' for name, text in zip(metric.labels, labels, strict=True))
        lines.append(f"{metric.name}{f'{{{named}}}' if named else ''} {value!r}")
    return "\n".join(lines) + "\n"


def _samples(status: dict[str, Any]) -> Iterator[Sample]:
    versions = status["versions"]
    facts = (status["name"], status["version"], versions["airflow_version"], versions["python_version"])
    yield names.LOCAL_INFO, 1, facts
    yield names.LOCAL_START, status["started"], ()
    yield names.LOCAL_LIVE, int(status["live"]["ok"]), ()
    yield names.LOCAL_READY, int(status["ready"]["ok"]), ()
    yield names.LOCAL_HEALTH, status["health"]["level"], ()
    yield names.LOCAL_MAINTENANCE, int(status["maintenance"] is not None), ()
    yield names.LOCAL_LEAVING, int(status["draining"]), ()
    if status["contact_age"] is not None:
        yield names.LOCAL_CONTACT_AGE, status["contact_age"], ()
    if status["clock_skew"] is not None:
        yield names.LOCAL_CLOCK_SKEW, status["clock_skew"], ()
    yield names.LOCAL_JOBS, len(status["jobs"]), ()
    yield names.LOCAL_SLOTS, status["concurrency"], ()
    yield names.LOCAL_SLOTS_FREE, status["free"], ()
    yield names.LOCAL_LOG_BACKLOG, status["log_backlog"], ()
    yield names.LOCAL_OUTBOX, status["outbox"]["size"], ()
    for key, count in status["outbox"]["dropped"].items():
        signal, _, reason = key.partition(" ")
        yield names.LOCAL_DROPPED, count, (signal, reason)
    for loop, doing in status["loops"].items():
        yield names.LOCAL_LOOP, doing["age"], (loop,)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
