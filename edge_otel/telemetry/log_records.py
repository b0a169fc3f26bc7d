"""Task log lines as OpenTelemetry log records. Pure: bytes in, an ExportLogsServiceRequest out.

Airflow's task processes write JSON lines with ``timestamp``, ``level``, ``event``, ``logger`` and ``error_detail``
(``airflow/sdk/log.py``). Whatever else is in a log is a line of text.
Source of the format: https://opentelemetry.io/docs/specs/otel/logs/data-model/
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, SeverityNumber

from edge_otel.telemetry import context, names

LONGEST = 256 * 1024
"""Bytes of a line beyond which its end is not waited for, and JSON is not parsed."""
BODY_MAX = 64 * 1024
"""Characters of a record's text."""

_SEVERITIES = {"critical": 21, "fatal": 21, "error": 17, "exception": 17, "warning": 13, "warn": 13}
_SEVERITIES |= {"info": 9, "debug": 5, "trace": 1}
_TIME_AT_START = re.compile(rb'"timestamp": ?"([^"]{10,40})"')
_LEVEL_AT_START = re.compile(rb'"level": ?"([a-z]{3,9})"')
_START = 300
"""Bytes at the start of a long JSON line in which its time and level are looked for."""


class Place(NamedTuple):
    """How far one claim's log was read."""

    offset: int = 0
    cut: bool = False
    """Within a line whose beginning was sent: the rest of it is passed over."""


class Line(NamedTuple):
    """One line of a log."""

    offset: int
    text: bytes
    """Without its end; of a line beyond LONGEST, the beginning."""


def split(data: bytes, place: Place, *, over: bool) -> tuple[list[Line], Place]:
    """Return the whole lines in ``data``, which begins at ``place``, and where the next one begins.

    ``over``: nothing comes after ``data``, so that what has no line end is a line too.
    """
    lines: list[Line] = []
    start, cut = 0, place.cut
    while (end := data.find(b"\n", start)) >= 0:
        if not cut and end > start:
            lines.append(Line(place.offset + start, data[start : min(end, start + LONGEST)]))
        start, cut = end + 1, False
    rest = len(data) - start
    if rest and (over or cut or rest >= LONGEST):
        if not cut:
            lines.append(Line(place.offset + start, data[start : start + LONGEST]))
        start, cut = len(data), not over
    return lines, Place(place.offset + start, cut)


@dataclass(frozen=True)
class Source:
    """Whose log it is."""

    job_id: str
    claim: int
    worker: str
    about: Mapping[str, Any]
    """dag_id, task_id, run_id, map_index, try_number, queue and worker, as in the store."""
    carrier: Mapping[str, Any]
    """The task's trace context; empty where it has none."""


def request(logs: Iterable[tuple[Source, list[Line]]], now: datetime) -> ExportLogsServiceRequest:
    """Return the records of all these lines. A line that says no time has that of the line before it."""
    whole = ExportLogsServiceRequest()
    for source, lines in logs:
        _add(whole.resource_logs.add(), source, lines, int(now.timestamp() * 1e9))
    return whole


def _add(group: ResourceLogs, source: Source, lines: list[Line], observed: int) -> None:
    group.resource.attributes.add(key=names.SERVICE_NAMESPACE).value.string_value = "airflow"
    # As the spans of task processes have it, so that one leads to the other.
    group.resource.attributes.add(key=names.SERVICE_NAME).value.string_value = "airflow-task"
    group.resource.attributes.add(key=names.WORKER_NAME).value.string_value = source.worker
    of_every_line = _of_every_line(source)
    of_every_line.observed_time_unix_nano = observed
    records = group.scope_logs.add().log_records
    time: int = 0
    for line in lines:
        record = records.add()
        record.CopyFrom(of_every_line)
        record.attributes.add(
            key=names.LOG_RECORD_ID
        ).value.string_value = f"{source.job_id}-{source.claim}-{line.offset}"
        _describe(record, line.text)
        record.time_unix_nano = time = record.time_unix_nano or time


def _of_every_line(source: Source) -> LogRecord:
    record = LogRecord()
    if carrier := context.valid(dict(source.carrier)):
        trace_id, span_id = context.ids(carrier)
        record.trace_id, record.span_id = bytes.fromhex(trace_id), bytes.fromhex(span_id)
        record.flags = int(context.sampled(carrier))
    about = source.about
    for name, text in (
        (names.DAG_ID, about.get("dag_id")),
        (names.TASK_ID, about.get("task_id")),
        (names.RUN_ID, about.get("run_id")),
        (names.QUEUE, about.get("queue")),
        (names.JOB_ID, source.job_id),
    ):
        record.attributes.add(key=name).value.string_value = text or ""
    for name, number in ((names.MAP_INDEX, "map_index"), (names.TRY_NUMBER, "try_number")):
        record.attributes.add(key=name).value.int_value = about.get(number, -1)
    return record


def _describe(record: LogRecord, text: bytes) -> None:
    """Write what a line says into its record."""
    said = _parsed(text) if text.startswith(b"{") else None
    if said is None:
        body = text[: 4 * BODY_MAX].decode(errors="backslashreplace").removesuffix("\r")
        long = len(text) >= LONGEST or len(body) > BODY_MAX
        head = text[:_START] if long and text.startswith(b"{") else b""
        time = _TIME_AT_START.search(head)
        level = _LEVEL_AT_START.search(head)
        said = {"timestamp": time and time[1].decode("ascii", "replace"), "level": level and level[1].decode()}
    else:
        event = said["event"]
        body = event if isinstance(event, str) else json.dumps(event)
        long = len(body) > BODY_MAX
    # JSON may hold halves of surrogate pairs, which no protobuf can.
    record.body.string_value = body[:BODY_MAX].encode(errors="backslashreplace").decode()
    if long:
        record.attributes.add(key=names.LOG_TRUNCATED).value.bool_value = True
    record.time_unix_nano = _nanoseconds(said.get("timestamp"))
    level = said.get("level")
    if isinstance(level, str) and level in _SEVERITIES:
        record.severity_number = SeverityNumber.ValueType(_SEVERITIES[level])
        record.severity_text = level.upper()
    for name, value in _exception(said.get("error_detail")):
        record.attributes.add(key=name).value.string_value = value[:BODY_MAX].encode(errors="backslashreplace").decode()


def _parsed(text: bytes) -> dict[str, Any] | None:
    """Return what a JSON line of Airflow's says, or None where it is none."""
    if len(text) >= LONGEST:
        return None
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) and "event" in said else None


def _nanoseconds(text: object) -> int:
    """Return a time in nanoseconds since 1970; 0, which stands for unknown, where there is none."""
    try:
        time = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        time = None
    if time is None:
        return 0
    since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    microseconds = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    # What fits into the field; a task may write any time it likes.
    return microseconds * 1000 if 0 < microseconds < 2**63 // 1000 else 0


def _exception(detail: object) -> list[tuple[names.Attribute, str]]:
    """Return the attributes of the exception that a line shows. The first is the one that was raised last."""
    if not isinstance(detail, list) or not detail or not isinstance(detail[0], dict):
        return []
    stack = [
        f"{error.get('exc_type')}: {error.get('exc_value')}" + _frames(error)
        for error in detail
        if isinstance(error, dict)
    ]
    return [
        (names.EXCEPTION_TYPE, str(detail[0].get("exc_type"))),
        (names.EXCEPTION_MESSAGE, str(detail[0].get("exc_value"))),
        (names.EXCEPTION_STACKTRACE, "\n".join(stack)),
    ]


def _frames(error: Mapping[str, Any]) -> str:
    frames = error.get("frames")
    if not isinstance(frames, list):
        return ""
    return "".join(
        f'\n  File "{frame.get("filename")}", line {frame.get("lineno")}, in {frame.get("name")}'
        for frame in frames
        if isinstance(frame, dict)
    )
