"""The OTLP gateway while the collector is away, or takes some things and not others."""

from __future__ import annotations

import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from channels import wait_for
from far_collector import Answer, taken
from gateways import HUSH, Sender, post, rejected, traces, unread
from served import new_token

from demo.process import free_port
from edge_otel.api import forwarder

# What is passed on is not what a database holds; who sends it is looked up as for every other route.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


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
    serve_gateway, collector, token, caplog, answer, least, most
):
    api = serve_gateway(collector.url)
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
    serve_gateway, collector, token, status, caplog, impatient
):
    api = serve_gateway(collector.url)
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
def test_a_collector_that_cannot_be_reached_is_waited_for_by_one_request_only(
    serve_gateway, token, fault, impatient, caplog
):
    with rude(fault) as url, caplog.at_level(logging.INFO):
        api = serve_gateway(url)
        answer = post(api, token, traces(padding=3_000_000))
        assert (answer.status_code, answer.json()["error"]) == (503, "CollectorAway")
        began = time.monotonic()
        assert {post(api, token).status_code for _ in range(30)} == {503}
        assert time.monotonic() - began < 30 * forwarder.ANSWER_WITHIN, "had each of them waited"
        assert unread(api, token).startswith(b"HTTP/1.1 503 ")
        told = [record.getMessage() for record in caplog.records if "takes no traces" in record.getMessage()]
        assert len(told) == 1
        assert HUSH not in caplog.text


def test_after_an_outage_one_request_tries_and_then_all_are_taken(serve_gateway, token, collector, caplog, monkeypatch):
    monkeypatch.setattr("edge_otel.api.outage.FIRST_WAIT", 0.1)
    monkeypatch.setattr("edge_otel.api.outage.LONGEST_WAIT", 0.1)
    api = serve_gateway(collector.url)
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


def test_a_wrong_certificate_authority_is_logged_and_ends_nothing(serve_gateway, collector, token, monkeypatch, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file")
    port = free_port()
    api = serve_gateway(f"https://127.0.0.1:{port}")
    assert "certificates cannot be read" in caplog.text
    assert post(api, token).status_code == 503
