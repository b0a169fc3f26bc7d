"""The OTLP gateway: whose telemetry it is, what is passed on, and what every fault of a sender is answered with."""

from __future__ import annotations

import gzip
import logging

import pytest
from credentials import refused_anywhere, shared_secret
from far_collector import Answer, taken
from gateways import HUSH, NAME, post, rejected, traces, workers_of
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from served import new_token

from edge_otel.api import forwarder
from edge_otel.telemetry import counters

# What is passed on is not what a database holds; who sends it is looked up as for every other route.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("signal", "kind", "groups"),
    [
        ("traces", ExportTraceServiceRequest, "resource_spans"),
        ("metrics", ExportMetricsServiceRequest, "resource_metrics"),
        ("logs", ExportLogsServiceRequest, "resource_logs"),
    ],
)
def test_telemetry_arrives_in_the_workers_name_and_without_its_token(
    gateway, collector, token, signal, kind, groups, packed
):
    request = kind()
    for claimed in ((), ("v",), ("v", "w", "u")):
        group = getattr(request, groups).add(schema_url="url")
        for name in claimed:
            group.resource.attributes.add(key=NAME).value.string_value = name
    before = counters.REGISTRY.get_sample_value("edge_otlp_forwarded_bytes_total", {"signal": signal}) or 0
    answer = post(gateway, token, request.SerializeToString(), signal=signal, packed=packed)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Type"] == "application/x-protobuf"
    [got] = collector.got
    assert got.path == f"/v1/{signal}"
    assert got.headers["x-key"] == HUSH
    assert got.headers["content-type"] == "application/x-protobuf"
    arrived = kind.FromString(got.body)
    assert [group.schema_url for group in getattr(arrived, groups)] == ["url"] * 3
    for group in getattr(arrived, groups):
        assert [(a.key, a.value.string_value) for a in group.resource.attributes] == [(NAME, "w")]
    secret = token.encode()
    assert not any(part in value for part in (token, token[-20:]) for value in got.headers.values())
    assert "authorization" not in got.headers
    assert secret not in got.body
    after = counters.REGISTRY.get_sample_value("edge_otlp_forwarded_bytes_total", {"signal": signal})
    assert after - before == len(got.body)


def test_connections_to_the_collector_are_kept(gateway, collector, token):
    for _ in range(5):
        assert post(gateway, token).status_code == 200
    assert len({got.connection for got in collector.got}) == 1


def test_a_token_speaks_for_its_own_worker_whatever_is_claimed(gateway, collector):
    own = {name: new_token(name) for name in ("v", "w")}
    for name, other in (("v", "w"), ("w", "v")):
        assert post(gateway, own[name], traces([other]), worker=other).status_code == 200
        assert workers_of(collector.got[-1].body) == [[name]]
        assert post(gateway, own[name], traces(resource=False), worker="-- no name").status_code == 200
        assert workers_of(collector.got[-1].body) == [[name]]


def test_a_token_of_a_group_speaks_for_those_in_it(gateway, collector):
    group = new_token("site7-*")
    assert post(gateway, group, traces(["site7-2", "v"]), worker="site7-1").status_code == 200
    assert workers_of(collector.got.pop().body) == [["site7-1"]]
    for wrong in (None, "site8-1", "", "site7-" + "x" * 64, "site7-*", "site7-\u00e9".encode()):
        answer = post(gateway, group, traces(["site7-1"]), worker=wrong)
        assert (answer.status_code, answer.json()["error"]) == (403, "Forbidden"), wrong
    assert collector.got == []


def test_a_wrong_credential_passes_nothing_on(serve_gateway, collector):
    api = serve_gateway(collector.url, accept_shared_secret_tokens=True)
    path = "/v2/otlp/v1/traces"
    wrong = refused_anywhere(path)
    del wrong["another worker's"]
    for what, authorization in wrong.items():
        headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
        assert post(api, None, **headers).status_code == 403, what
    for signed in ("traces", "otlp/v1/traces"):
        assert post(api, None, Authorization=shared_secret(signed), worker="w").status_code == 403
    assert collector.got == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json"},
        {"Content-Type": ""},
        {"Content-Encoding": "zstd"},
        {"Content-Encoding": "gzip, gzip"},
    ],
)
def test_what_is_not_protobuf_is_answered_415_with_what_to_send(gateway, collector, token, headers):
    answer = post(gateway, token, **headers)
    assert (answer.status_code, answer.json()["error"]) == (415, "UnsupportedMedia")
    assert "application/x-protobuf" in answer.json()["detail"]
    assert collector.got == []


def test_a_content_type_may_have_parameters(gateway, token):
    assert post(gateway, token, **{"Content-Type": "Application/X-Protobuf; charset=x"}).status_code == 200


@pytest.mark.parametrize(
    "packed",
    [b"garbage", gzip.compress(traces())[:-9], gzip.compress(b"garbage")],
    ids=["not gzip", "cut short", "not protobuf"],
)
def test_garbage_is_answered_400(gateway, collector, token, packed):
    before = rejected("malformed")
    answer = post(gateway, token, packed, **{"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]) == (400, "NotOtlp")
    assert post(gateway, token, b"garbage").status_code == 400
    assert rejected("malformed") == before + 2
    assert collector.got == []


def test_a_body_of_100_mb_a_gzip_bomb_and_too_many_resources_are_answered_413(gateway, collector, token):
    before = rejected("too_large")
    bomb = gzip.compress(bytes(4 * forwarder.MAX_UNPACKED), compresslevel=9)
    bodies = {"100 MB": bytes(100_000_000), "resources": b"\x0a\x00" * 1_000_000}
    for what, body in bodies.items():
        answer = post(gateway, token, body)
        assert (answer.status_code, answer.json()["error"]) == (413, "TooLarge"), what
    answer = post(gateway, token, bomb, **{"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]) == (413, "TooLarge")
    assert rejected("too_large") == before + 3
    assert post(gateway, None, bodies["100 MB"]).status_code == 403
    assert collector.got == []


def test_what_is_no_signal_of_otlp_is_not_found(gateway, token):
    answer = post(gateway, token, signal="profiles")
    assert (answer.status_code, answer.json()["error"]) == (404, "HttpError")


def test_without_a_collector_the_answer_names_the_option(start_api, token, monkeypatch):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    answer = post(start_api(channels=True), token)
    assert (answer.status_code, answer.json()["error"]) == (404, "NoCollector")
    assert "[edge] otlp_endpoint" in answer.json()["detail"]


@pytest.mark.parametrize("status", [400, 413, 415])
def test_what_the_collector_refuses_is_not_to_be_sent_again(gateway, collector, token, status, caplog):
    collector.answer = lambda _: Answer(status, b"reasons of the collector")
    with caplog.at_level(logging.INFO):
        answer = post(gateway, token)
    assert (answer.status_code, answer.json()["error"]) == (400, "CollectorRefused")
    assert "reasons" not in answer.text
    assert "reasons of the collector" in caplog.text
    assert answer.json()["error_id"] in caplog.text
    collector.answer = taken
    assert post(gateway, token).status_code == 200


def test_a_signal_that_the_collector_does_not_take_holds_up_no_other(gateway, collector, token):
    collector.answer = lambda got: Answer(200 if got.path == "/v1/traces" else 404)
    answer = post(gateway, token, signal="logs")
    assert (answer.status_code, answer.json()["error"]) == (404, "NoCollector")
    assert "logs" in answer.json()["detail"]
    assert post(gateway, token).status_code == 200


def test_what_the_collector_took_in_part_is_told(gateway, collector, token):
    said = ExportTraceServiceResponse()
    said.partial_success.rejected_spans = 3
    said.partial_success.error_message = "too old"
    collector.answer = lambda _: Answer(200, said.SerializeToString())
    assert ExportTraceServiceResponse.FromString(post(gateway, token).content) == said
    collector.answer = lambda _: Answer(202, b'{"partialSuccess":{}}', {"Content-Type": "application/json"})
    answer = post(gateway, token)
    assert (answer.status_code, answer.content) == (200, b"")
