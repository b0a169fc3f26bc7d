"""Whose telemetry it is, written on every resource; the rest arrives as it was sent."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from edge_otel.errors import NotOtlp, TooLarge
from edge_otel.telemetry.stamp import MAX_ATTRIBUTES, MAX_GROUPS, MAX_RESOURCE, stamped

NAME = "edge.worker.name"
REQUESTS = {
    "resource_spans": (ExportTraceServiceRequest, "scope_spans"),
    "resource_metrics": (ExportMetricsServiceRequest, "scope_metrics"),
    "resource_logs": (ExportLogsServiceRequest, "scope_logs"),
}

keys = st.sampled_from([NAME, "edge.worker", "service.name", "host.name", ""])
resources = st.lists(st.none() | st.lists(st.tuples(keys, st.text(max_size=9))), max_size=5)


def request_of(groups: str, resources: list[list[tuple[str, str]] | None]) -> Message:
    """Return a request with one group for each of these resources, None being a group without one."""
    kind, scopes = REQUESTS[groups]
    request = kind()
    for number, attributes in enumerate(resources):
        group = getattr(request, groups).add(schema_url=f"url {number}")
        getattr(group, scopes).add().scope.name = f"scope {number}"
        for key, text in attributes or ():
            group.resource.attributes.add(key=key).value.string_value = text
    return request


@settings(deadline=None)
@given(groups=st.sampled_from(sorted(REQUESTS)), resources=resources)
def test_every_resource_has_the_name_once_and_all_else_is_as_it_was(groups, resources):
    request = request_of(groups, resources)
    got = type(request).FromString(stamped(request.SerializeToString(), "w"))
    for group in getattr(request, groups):
        kept = [attribute for attribute in group.resource.attributes if attribute.key != NAME]
        del group.resource.attributes[:]
        group.resource.attributes.extend(kept)
        group.resource.attributes.add(key=NAME).value.string_value = "w"
    assert got == request


def test_a_resource_in_two_parts_is_one():
    # Of a message that comes twice, the receiver makes one: the second must not bring the claimed name back.
    claimed = request_of("resource_spans", [[(NAME, "v")]]).resource_spans[0].SerializeToString()
    twice = claimed + claimed
    body = b"\x0a" + bytes([len(twice)]) + twice
    group = ExportTraceServiceRequest.FromString(stamped(body, "w")).resource_spans[0]
    assert [a.value.string_value for a in group.resource.attributes if a.key == NAME] == ["w"]


@pytest.mark.parametrize(
    "key", ["edge_worker_name", "edge.worker_name", "Edge.Worker.Name", "edge-worker/name", "edge..worker__name"]
)
def test_what_a_store_would_make_the_same_label_of_is_dropped(key):
    request = request_of("resource_logs", [[(key, "v"), ("edge.worker.names", "v"), ("my.edge.worker.name", "v")]])
    [group] = ExportLogsServiceRequest.FromString(stamped(request.SerializeToString(), "w")).resource_logs
    keys = [attribute.key for attribute in group.resource.attributes]
    assert keys == ["edge.worker.names", "my.edge.worker.name", NAME]


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_whatever_is_sent_is_stamped_or_refused(body):
    try:
        text = stamped(body, "w")
    except (NotOtlp, TooLarge):
        return
    assert text.count(b"edge.worker.name") >= (1 if body else 0)


@pytest.mark.parametrize(
    "body",
    [
        b"no protobuf at all",
        b"\x0a",
        b"\x0a\x05ab",
        b"\x0a\x80",
        b"\x0a" + b"\x80" * 11,
        b"\x12\x00",
        b"\x0a\x02\x0a\x05",
        b"\x0a\x03\x0a\x01\xff",
        b'{"resourceSpans": []}',
    ],
)
def test_what_is_no_request_is_refused(body):
    with pytest.raises(NotOtlp):
        stamped(body, "w")


@pytest.mark.parametrize(
    "body",
    [
        b"\x0a\x00" * (MAX_GROUPS + 1),
        request_of("resource_logs", [[("k", "v")] * (MAX_ATTRIBUTES + 1)]).SerializeToString(),
        request_of("resource_logs", [[("k", "v" * MAX_RESOURCE)]]).SerializeToString(),
    ],
    ids=["groups", "attributes", "resource"],
)
def test_numbers_have_limits(body):
    with pytest.raises(TooLarge):
        stamped(body, "w")


def test_a_body_made_to_cost_a_hundred_times_its_size_is_kept_as_bytes():
    nested = b"\x12\x00" * (8 * 1024 * 1024)
    length = len(nested)
    body = b"\x0a" + bytes([length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14 & 0x7F | 0x80, length >> 21])
    assert len(stamped(body + nested, "w")) < length + 100
