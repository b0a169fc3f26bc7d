"""Task log lines as OpenTelemetry log records."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.telemetry import decode_logs
from edge_otel.telemetry.log_records import BODY_MAX, LONGEST, Line, Place, Source, request, split

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TRACE, SPAN = "1" * 32, "2" * 16
ABOUT = {"dag_id": "d", "task_id": "t", "run_id": "r", "map_index": 3, "try_number": 2, "queue": "q"}
SOURCE = Source("job", 1, "w", ABOUT, {"traceparent": f"00-{TRACE}-{SPAN}-01"})


def record_of(*texts, source=SOURCE):
    """Return the record of the last of these lines."""
    lines = [Line(10 * number, text) for number, text in enumerate(texts)]
    return decode_logs(request([(source, lines)], NOW).SerializeToString())[-1]


def test_a_line_of_airflow_has_its_time_level_text_and_the_ids_of_its_task():
    line = {"timestamp": "2026-01-02T03:04:05.123456Z", "level": "warning", "event": "a\nb", "logger": "task"}
    record = record_of(json.dumps(line).encode())
    assert (record.body, record.severity, record.trace_id, record.span_id) == ("a\nb", "WARNING", TRACE, SPAN)
    assert record.time == 1_767_323_045_123_456_000
    assert record.attributes == {
        "airflow.dag_id": "d",
        "airflow.task_id": "t",
        "airflow.dag_run.run_id": "r",
        "airflow.task_instance.map_index": "3",
        "airflow.task_instance.try_number": "2",
        "messaging.destination.name": "q",
        "messaging.message.id": "job",
        "log.record.uid": "job-1-0",
    }
    assert record.resource == {
        "service.namespace": "airflow",
        "service.name": "airflow-task",
        "edge.worker.name": "w",
    }


def test_an_exception_is_told_with_its_cause():
    frame = {"filename": "f.py", "lineno": 7, "name": "g"}
    detail = [
        {"exc_type": "ValueError", "exc_value": "bad", "frames": [frame]},
        {"exc_type": "KeyError", "exc_value": "'k'", "frames": []},
    ]
    record = record_of(json.dumps({"event": "Task failed", "level": "error", "error_detail": detail}).encode())
    assert record.attributes["exception.type"] == "ValueError"
    assert record.attributes["exception.message"] == "bad"
    stack = record.attributes["exception.stacktrace"]
    assert stack == "ValueError: bad\n  File \"f.py\", line 7, in g\nKeyError: 'k'"


@pytest.mark.parametrize(
    ("line", "body"),
    [
        (b"plain \x1b[31mred\x1b[0m", "plain \x1b[31mred\x1b[0m"),
        (b"with carriage return\r", "with carriage return"),
        (b"invalid \xff\xfe utf-8", "invalid \\xff\\xfe utf-8"),
        (b"nul\x00nul", "nul\x00nul"),
        (b'{"no": "event"}', '{"no": "event"}'),
        (b'{"event": ["a", 1]}', '["a", 1]'),
        (b'{"event": "half", "le', '{"event": "half", "le'),
        (b'{"event": "\\ud800"}', "\\ud800"),
        (b'{"event": "x", "level": 7, "timestamp": "soon", "error_detail": [1]}', "x"),
        (b'{"event": "x", "timestamp": "0001-01-01T00:00:00+00:00", "error_detail": [{"frames": [1]}]}', "x"),
        (b"[" * 100_000, "[" * BODY_MAX),
        (b'{"event": ' + b"[" * 100_000, ('{"event": ' + "[" * 100_000)[:BODY_MAX]),
    ],
)
def test_whatever_a_task_writes_is_one_record(line, body):
    record = record_of(line)
    assert (record.body, record.time) == (body, 0)


def test_a_line_without_a_time_has_that_of_the_line_before_it():
    first = b'{"event": "x", "timestamp": "1970-01-01T00:00:01Z"}'
    assert record_of(first, b"from a subprocess").time == 1_000_000_000


def test_a_task_without_a_trace_has_records_without_one():
    assert record_of(b"x", source=Source("job", 1, "w", {}, {"traceparent": "no"})).trace_id == ""


@pytest.mark.parametrize("size", [BODY_MAX + 1, LONGEST, 5 * LONGEST])
def test_a_long_line_is_cut_and_says_so_and_keeps_its_time_and_level(size):
    text = b'{"timestamp":"2026-01-02T03:04:05Z","level":"error","event":"' + b"x" * size + b'"}'
    lines, _ = split(text + b"\n", Place(), over=False)
    record = record_of(lines[0].text)
    assert len(record.body) == BODY_MAX
    assert record.attributes["edge.log.truncated"] == "True"
    assert (record.severity, record.time) == ("ERROR", 1_767_323_045_000_000_000)


@given(
    st.lists(st.sampled_from([b"", b"a", b"bb" * 40, b"\xff"]), max_size=12).map(b"\n".join),
    st.lists(st.integers(1, 60), max_size=12),
    st.booleans(),
)
def test_a_log_that_comes_in_pieces_gives_the_same_lines_as_one_that_comes_whole(text, cuts, ends):
    text += b"\n" if ends else b""
    place, found, known = Place(), [], 0
    for more in cuts:
        known = min(len(text), known + more)
        lines, place = split(text[place.offset : known], place, over=False)
        found += lines
    lines, place = split(text[place.offset :], place, over=True)
    found += lines
    assert [line.text for line in found] == [part for part in text.split(b"\n") if part]
    assert all(text[line.offset :].startswith(line.text) for line in found)
    assert place == Place(len(text))


def test_the_rest_of_a_line_whose_end_was_not_waited_for_is_passed_over():
    lines, place = split(b"x" * LONGEST, Place(), over=False)
    assert ([line.offset for line in lines], place) == ([0], Place(LONGEST, cut=True))
    lines, place = split(b"y" * 100, place, over=False)
    assert (lines, place) == ([], Place(LONGEST + 100, cut=True))
    lines, place = split(b"y\nnext\nha", place, over=False)
    assert (lines, place) == ([Line(LONGEST + 102, b"next")], Place(LONGEST + 107))
