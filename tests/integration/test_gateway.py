"""The OTLP gateway: whose telemetry it is, what is passed on, and what every fault of either side is answered with."""

from __future__ import annotations

import gzip
import logging
import os
import re
import socket
import statistics
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import requests
from channels import wait_for
from credentials import refused_anywhere, shared_secret
from far_collector import Answer, FarCollector, taken
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from served import Api, new_token

from demo.process import free_port
from edge_otel.api import forwarder
from edge_otel.api.app import create_app
from edge_otel.settings import LogFolder, Settings
from edge_otel.telemetry import counters
from edge_otel.telemetry.stamp import MAX_GROUPS

# What is passed on is not what a database holds; who sends it is looked up as for every other route.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

NAME = "edge.worker.name"
PROTOBUF = {"Content-Type": "application/x-protobuf"}
HUSH = "collector-credential"


@pytest.fixture(scope="module")
def lasting():
    """A collector, and the API in front of it."""
    far = FarCollector()
    api = Api(create_app(settings_for(f"{far.url}/"), LogFolder(Path(os.devnull), 0o755, 0o644)), channels=True)
    yield far, api
    api.stop()
    far.stop()


@pytest.fixture
def collector(lasting):
    """A collector that takes everything."""
    far, _ = lasting
    yield far
    far.release()
    far.got, far.answer = [], taken


@pytest.fixture
def gateway(lasting, collector, database):
    """The API in front of the collector, for tests after which it is as before."""
    return lasting[1]


@pytest.fixture
def serve(start_api):
    """Starts an API with this collector."""

    def start(url, **options):
        return start_api(channels=True, **vars(settings_for(url, **options)))

    return start


def settings_for(url, **options):
    """Return the settings of an API with this collector."""
    return Settings(otlp_endpoint=url, otlp_headers=f"x-key={HUSH}", **options)


@pytest.fixture
def impatient(monkeypatch):
    """Wait for a collector less long than in production."""
    monkeypatch.setattr(forwarder, "ANSWER_WITHIN", 0.3)
    monkeypatch.setattr(forwarder, "PROBE_WITHIN", 0.2)


def traces(claimed=(), *, resource=True, padding=0):
    """Return a request with one span, whose resource claims these names."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    if resource:
        group.resource.attributes.add(key="service.name").value.string_value = "s"
        for name in claimed:
            group.resource.attributes.add(key=NAME).value.string_value = name
    group.scope_spans.add().spans.add(name="work").trace_state = "x" * padding
    return request.SerializeToString()


def post(api, token, body=None, *, signal="traces", worker=None, packed=False, **headers):
    """Send telemetry, and return the answer."""
    body = traces() if body is None else body
    if worker is not None:
        headers["X-Edge-Worker"] = worker
    if packed:
        body, headers = gzip.compress(body), headers | {"Content-Encoding": "gzip"}
    return api.call("POST", f"/v2/otlp/v1/{signal}", token, data=body, headers=PROTOBUF | headers)


def workers_of(body):
    """Return the names on the resources of a request."""
    groups = ExportTraceServiceRequest.FromString(body).resource_spans
    return [[a.value.string_value for a in group.resource.attributes if a.key == NAME] for group in groups]


def rejected(reason, signal="traces"):
    """Return how many requests were not passed on for this reason."""
    labels = {"signal": signal, "reason": reason}
    return counters.REGISTRY.get_sample_value("edge_otlp_rejected_total", labels) or 0


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


def test_a_wrong_credential_passes_nothing_on(serve, collector):
    api = serve(collector.url, accept_shared_secret_tokens=True)
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


@pytest.mark.parametrize("packed", [b"garbage", gzip.compress(traces())[:-9], gzip.compress(b"garbage")])
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


@pytest.mark.parametrize(
    ("answer", "least", "most"),
    [
        (Answer(500), 1, 2),
        (Answer(503), 1, 2),
        (Answer(401), 1, 2),
        (Answer(403), 1, 2),
        (Answer(307, headers={"Location": "http://127.0.0.1:9/"}), 1, 2),
        (Answer(429, headers={"Retry-After": "7"}), 7, 11),
        (Answer(503, headers={"Retry-After": "1000000"}), 60, 90),
        (Answer(503, headers={"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}), 1, 2),
        # Whoever says this is no collector.
        (Answer(200, b"<html>Sign in</html>"), 1, 2),
        (Answer(200, b"\xff" * 200_000, {"Content-Type": "application/x-protobuf"}), 1, 2),
        (Answer(200, b"x" * 1_000_000), 1, 2),
        (Answer(200, b"\n\x00", {"Content-Type": "text/html; charset=utf-8"}), 1, 2),
    ],
    ids=lambda value: f"{value.status} {value.body[:9]} {value.headers}" if isinstance(value, Answer) else "",
)
def test_a_collector_that_does_not_take_it_is_answered_503_with_when_to_come_again(
    serve, collector, token, caplog, answer, least, most
):
    api = serve(collector.url)
    collector.answer = lambda _: answer
    before = rejected("collector_away")
    with caplog.at_level(logging.INFO):
        answers = [post(api, token) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {503}
    assert answers[0].json()["error"] == "CollectorAway"
    assert all(least <= int(answer.headers["Retry-After"]) <= most for answer in answers[:3])
    assert [bool(got.body) for got in collector.got] == [True, False], "while it is known to be away, nobody asks it"
    assert rejected("collector_away") == before + 20
    told = [record for record in caplog.records if "takes no traces" in record.getMessage()]
    assert len(told) == 1
    assert f"it answers {answer.status}" in told[0].getMessage()
    assert ("wrong URL" in told[0].getMessage()) == (answer.status == 200)
    assert "-> 503" not in caplog.text
    assert HUSH not in caplog.text
    assert not any(HUSH in answer.text for answer in answers)


@pytest.mark.parametrize("status", [401, 429, 500, None])
def test_what_the_collector_takes_of_others_is_taken_while_one_worker_sends_what_it_does_not(
    serve, collector, token, status, caplog, impatient
):
    api = serve(collector.url)
    done = threading.Event()

    def answer(got):
        if b"sick" not in got.body:
            return taken(got)
        if status is None:
            done.wait(20)
        return Answer(status or 500)

    collector.answer = answer
    hostile = new_token("hostile")
    poison = traces().replace(b"work", b"sick")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            refused = post(api, hostile, poison)
            assert (refused.status_code, refused.json()["error"]) == (503, "CollectorAway")
            assert int(refused.headers["Retry-After"]) >= forwarder.REFUSED_WAIT
            assert post(api, token).status_code == 200
            assert post(api, hostile).status_code == 200
    done.set()
    told = [record.getMessage() for record in caplog.records if "The collector takes" in record.getMessage()]
    assert len(told) == 1
    assert "but not what hostile sent: " in told[0]


def stalled(api, token):
    """Return the connection of a request whose body does not come, but for its first byte."""
    head = f"POST /v2/otlp/v1/traces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 1000\r\n"
    raw = socket.create_connection(("127.0.0.1", api.port), timeout=20)
    raw.sendall(f"{head}Content-Type: application/x-protobuf\r\n\r\n".encode() + b"x")
    return raw


def unread(api, token):
    """Return the beginning of the answer to a request whose body never comes."""
    with stalled(api, token) as raw:
        return raw.recv(100)


@contextmanager
def rude(fault):
    """Yield the URL of a server that is none."""
    if fault == "unknown host":
        yield "http://collector.invalid:4318"
        return
    going = threading.Event()

    def meet(listening):
        while not going.is_set():
            with suppress(TimeoutError, ConnectionError), listening.accept()[0] as connection:
                connection.recv(100)
                if fault == "speaks no HTTP":
                    connection.sendall(b"SSH-2.0\r\n\r\n")
                while fault == "slow" and not going.wait(0.05):
                    connection.sendall(b"H")

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        listening.settimeout(0.05)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        if fault == "nobody listens":
            listening.close()
        meeting = threading.Thread(target=meet, args=(listening,))
        if fault not in ("nobody listens", "black hole"):
            meeting.start()
        try:
            yield url
        finally:
            going.set()
            if meeting.ident is not None:
                meeting.join()


@pytest.mark.parametrize("fault", ["black hole", "slow", "nobody listens", "unknown host", "closes", "speaks no HTTP"])
def test_a_collector_that_cannot_be_reached_is_waited_for_by_one_request_only(serve, token, fault, impatient, caplog):
    with rude(fault) as url, caplog.at_level(logging.INFO):
        api = serve(url)
        answer = post(api, token, traces(padding=3_000_000))
        assert (answer.status_code, answer.json()["error"]) == (503, "CollectorAway")
        began = time.monotonic()
        assert {post(api, token).status_code for _ in range(10)} == {503}
        assert time.monotonic() - began < forwarder.ANSWER_WITHIN
        assert unread(api, token).startswith(b"HTTP/1.1 503 ")
        told = [record.getMessage() for record in caplog.records if "takes no traces" in record.getMessage()]
        assert len(told) == 1
        assert HUSH not in caplog.text


def test_after_an_outage_one_request_tries_and_then_all_are_taken(serve, token, collector, caplog, monkeypatch):
    monkeypatch.setattr("edge_otel.api.outage.FIRST_WAIT", 0.1)
    monkeypatch.setattr("edge_otel.api.outage.LONGEST_WAIT", 0.1)
    api = serve(collector.url)
    collector.answer = lambda _: Answer(500)
    with ThreadPoolExecutor(4) as pool, caplog.at_level(logging.INFO):
        wait_for(lambda: post(api, token).status_code == 503 and len(collector.got) == 4, "three probes to fail")
        collector.answer = taken
        collector.hold()
        probe = pool.submit(post_until_tried, Sender(api), token, collector)
        wait_for(lambda: collector.waiting == 1, "one request to try")
        assert {post(api, token).status_code for _ in range(5)} == {503}
        assert [bool(got.body) for got in collector.got] == [True, False, False, False, False]
        collector.release()
        assert probe.result().status_code == 200
    assert post(api, token).status_code == 200
    told = [record.getMessage() for record in caplog.records if "The collector takes" in record.getMessage()]
    assert told == [
        "The collector takes no traces: it answers 500. Workers keep theirs until it does.",
        "The collector takes traces again.",
    ]


def post_until_tried(api, token, collector):
    """Send telemetry again and again, and return the answer to the first request that reached the collector."""
    before = len(collector.got)
    while True:
        answer = post(api, token)
        if len(collector.got) > before:
            return answer
        time.sleep(0.01)


class Sender:
    """An API to call on a connection of its own: those of a test are not for threads."""

    def __init__(self, api):
        self._url = api.url

    def call(self, method, path, token, **kwargs):
        headers = kwargs.pop("headers") | {"Authorization": f"Bearer {token}"}
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, self._url + path, headers=headers, timeout=30, **kwargs)


def test_a_slow_collector_gets_so_many_requests_at_a_time_and_no_worker_takes_all_places(gateway, collector, token):
    collector.hold()
    crowd = [new_token(f"w{number}") for number in range(9)]
    sender = Sender(gateway)
    with ThreadPoolExecutor(60) as pool:
        own = [pool.submit(post, sender, crowd[0]) for _ in range(8)]
        wait_for(lambda: collector.waiting == 4 and sum(f.done() for f in own) == 4, "one worker's places to be taken")
        assert [f.result().status_code for f in own if f.done()] == [503] * 4
        others = [pool.submit(post, sender, text) for text in crowd[1:] for _ in range(4)]
        wait_for(
            lambda: collector.waiting == forwarder.PLACES and sum(f.done() for f in others) == 4,
            "all places to be taken",
        )
        refused = post(gateway, token)
        assert (refused.status_code, refused.json()["error"]) == (503, "TooBusy")
        assert int(refused.headers["Retry-After"]) >= 1
        collector.release()
        assert sorted(f.result().status_code for f in own + others) == [200] * 32 + [503] * 8
    assert post(gateway, token).status_code == 200, "places are free again"


def test_a_body_that_does_not_come_holds_a_place_of_its_worker_and_not_for_ever(gateway, token, monkeypatch):
    slow = new_token("slow")
    with ExitStack() as stack:
        held = [stack.enter_context(stalled(gateway, slow)) for _ in range(2 * forwarder.PLACES_PER_WORKER)]
        wait_for(lambda: post(gateway, slow).status_code == 503, "the worker's places to be taken")
        assert unread(gateway, slow).startswith(b"HTTP/1.1 503 "), "no more bodies are read into memory"
        assert post(gateway, token).status_code == 200
        for raw in held:
            raw.close()
        wait_for(lambda: post(gateway, slow).status_code == 200, "places to be free again")
    monkeypatch.setattr(forwarder, "BODY_WITHIN", 0.2)
    before = rejected("busy")
    assert unread(gateway, slow).startswith(b"HTTP/1.1 503 ")
    assert rejected("busy") == before + 1
    assert post(gateway, slow).status_code == 200


def test_a_client_that_breaks_off_takes_no_place_and_leaves_no_failure(gateway, collector, token, caplog):
    for _ in range(10):
        stalled(gateway, token).close()
    wait_for(lambda: post(gateway, token).status_code == 200, "places to be free again")
    assert "Traceback" not in caplog.text
    assert not re.search("failed", caplog.text)


def test_heartbeats_keep_their_round_trip_while_the_gateway_is_hammered(launcher, database_url, connect, token):
    body = {
        # As large as may be, and as many resources.
        "traces": gzip.compress(traces(padding=forwarder.MAX_UNPACKED - 1000)),
        "logs": gzip.compress(b"\x0a\x00" * MAX_GROUPS),
        # Nobody answers these.
        "metrics": gzip.compress(b""),
    }
    going = threading.Event()
    collector = FarCollector()

    def answer(got):
        collector.got.clear()
        if got.path == "/v1/metrics":
            going.wait(60)
        return Answer()

    collector.answer = answer
    api = launcher.start(database_url, otlp_endpoint=collector.url)
    far = connect(to=api, token=token)

    def trip():
        began = time.monotonic()
        far.beat()
        return time.monotonic() - began

    answers = Counter()

    def hammer(signal, text):
        sender = Sender(api)
        while not going.is_set():
            answer = post(sender, text, body[signal], signal=signal, **{"Content-Encoding": "gzip"})
            answers[signal, answer.status_code] += 1

    quiet = statistics.median(trip() for _ in range(50))
    with ThreadPoolExecutor(64) as pool:
        hammering = [
            pool.submit(hammer, signal, new_token(f"{signal}-{number}"))
            for signal, count in (("traces", 4), ("logs", 4), ("metrics", forwarder.PLACES - 6))
            for number in range(count)
        ]
        wait_for(lambda: answers["traces", 200] and answers["logs", 200], "the gateway to work")
        busy = [trip() for _ in range(100)]
        going.set()
        for each in hammering:
            each.result(timeout=60)
    collector.stop()
    api.stop()
    print(f"heartbeat: {quiet * 1000:.1f} ms, hammered {statistics.median(busy) * 1000:.1f} ms, {dict(answers)}")
    assert statistics.median(busy) < 0.05
    assert max(busy) < 2.0


def test_a_server_that_goes_does_not_wait_for_the_collector(launcher, database_url, database, token):
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:
        listening.settimeout(15)
        replica = launcher.start(database_url, otlp_endpoint=f"http://127.0.0.1:{listening.getsockname()[1]}")
        answer = pool.submit(post, Sender(replica), token)
        with listening.accept()[0] as connection:
            assert connection.recv(10)
            began = time.monotonic()
            replica.stop()
            assert answer.result().status_code == 503
    assert time.monotonic() - began < 10


def test_a_wrong_certificate_authority_is_logged_and_ends_nothing(serve, collector, token, monkeypatch, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file")
    port = free_port()
    api = serve(f"https://127.0.0.1:{port}")
    assert "certificates cannot be read" in caplog.text
    assert post(api, token).status_code == 503
