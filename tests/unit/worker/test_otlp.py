"""The OTLP format: what counts as a request, the answer in part, bounded decompression, and the limit on the rate."""

from __future__ import annotations

import gzip
import tracemalloc

import pytest
from edge_worker.allowance import Allowance
from edge_worker.otlp import PARSED_MAX, PARTS_MAX, SIGNALS, TooLarge, count, halves, partial_success, unzip
from edge_worker.outbox import RECORD, merged
from edge_worker.plan import Delivery, read_delivery
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse as Response


def spans(number: int) -> bytes:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for _ in range(number):
        scope.spans.add()
    return request.SerializeToString()


@pytest.mark.parametrize("signal", SIGNALS)
def test_items_are_counted_and_garbage_is_refused(signal: str) -> None:
    # Resource, scope and item have the same field numbers in all three.
    assert count(signal, spans(3)) == 3  # type: ignore[arg-type]
    assert count(signal, b"") == 0  # type: ignore[arg-type]
    for garbage in (b"\xff" * 50, spans(3)[:-1], b'{"resourceSpans": []}', b"\x0a\x02" * 500):
        with pytest.raises(ValueError, match="is not an Export"):
            count(signal, garbage)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bomb",
    [b"\x0a\x00" * 8_000_000, spans(PARTS_MAX + 1), b"\x0a\x04\x10\x01\x10\x01" * PARTS_MAX],
    ids=["groups", "items", "fields"],
)
def test_request_of_too_many_parts_is_refused_before_it_grows(bomb: bytes) -> None:
    with pytest.raises(TooLarge):
        count("traces", bomb)


def test_large_request_is_counted_without_parsing_it() -> None:
    request = ExportTraceServiceRequest()
    for _ in range(3):
        group = request.resource_spans.add(schema_url="u" * 100_000)
        group.resource.attributes.add(key="k").value.int_value = 1
        for _ in range(5):
            group.scope_spans.add(schema_url="s").spans.add(name="n", start_time_unix_nano=7, trace_id=b"t" * 16)
    body = request.SerializeToString()
    assert count("traces", body) == 15
    for garbage in (body[:-1], body[:150_000] + b"\xff" * 150_000):
        with pytest.raises(ValueError, match="is not an Export"):
            count("traces", garbage)


@pytest.mark.parametrize("rejected", [0, 1, 127, 128, 300_000])
def test_partial_success_is_what_the_standard_says(rejected: int) -> None:
    found = Response.FromString(partial_success(rejected, "x" * 200)).partial_success
    assert (found.rejected_spans, found.error_message) == (rejected, "x" * 200)


def test_decompression_stops_at_the_limit_and_takes_whole_streams_only() -> None:
    assert unzip(gzip.compress(b"x" * 100), 100) == b"x" * 100
    with pytest.raises(TooLarge):
        unzip(gzip.compress(b"x" * 101), 100)
    for damaged in (b"", b"no", gzip.compress(b"x")[:-1], gzip.compress(b"x") + b"y"):
        with pytest.raises(ValueError, match="gzip"):
            unzip(damaged, 100)


def test_bomb_takes_no_more_memory_than_the_limit() -> None:
    bomb = gzip.compress(b"\0" * 30_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            unzip(bomb, 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_payloads_of_a_signal_are_merged_in_their_order_to_a_bounded_size() -> None:
    part = b"L" * PARSED_MAX
    many = [("logs", part, 1) for _ in range(RECORD // PARSED_MAX)]
    found = merged([("logs", b"a", 1), ("traces", b"b", 2), ("logs", b"c", 3), *many, ("logs", b"d", 1)])  # type: ignore[list-item]
    assert [(signal, len(payload), items) for signal, payload, items in found] == [
        ("traces", 1, 2),
        ("logs", 2 + 7 * PARSED_MAX, 11),
        ("logs", 1 + PARSED_MAX, 2),
    ]


def test_payload_that_was_too_large_to_be_parsed_is_not_merged() -> None:
    large = b"L" * (PARSED_MAX + 1)
    found = merged([("logs", b"a", 1), ("logs", large, 1), ("logs", b"b", 1), ("logs", b"c", 1)])
    assert found == [("logs", b"a", 1), ("logs", large, 1), ("logs", b"bc", 2)]


def test_request_is_cut_in_half_between_its_groups() -> None:
    groups = [spans(number) for number in (1, 200, 3)]
    assert halves(b"".join(groups)) == (groups[0], groups[1] + groups[2])
    for whole in (groups[1], b"", b"\xff" * 30, b"\x0a\x05x"):
        assert halves(whole) is None


def test_allowance_is_a_rate_with_a_burst() -> None:
    found = Allowance(10, 100)
    assert found.take(100, 5.0)
    assert not found.take(1, 5.0)
    assert found.take(10, 6.0)
    assert not found.take(1, 6.0)
    assert not found.take(101, 1000.0)
    assert found.take(100, 1000.0)


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (200, Delivery.TAKEN),
        (202, Delivery.TAKEN),
        (400, Delivery.BAD),
        (413, Delivery.BAD),
        (415, Delivery.BAD),
        (422, Delivery.BAD),
        (431, Delivery.BAD),
        (401, Delivery.NOT_ALLOWED),
        (403, Delivery.NOT_ALLOWED),
        (404, Delivery.NO_COLLECTOR),
        *((status, Delivery.LATER) for status in (None, 301, 408, 425, 429, 500, 502, 503, 504)),
    ],
)
def test_answer_to_telemetry(status: int | None, meaning: Delivery) -> None:
    assert read_delivery(status) is meaning
