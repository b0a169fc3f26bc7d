"""The OTLP gateway under load, and while its server goes."""

from __future__ import annotations

import gzip
import re
import socket
import statistics
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from channels import wait_for
from far_collector import Answer, FarCollector
from gateways import Sender, post, rejected, stalled, traces, unread
from served import new_token

from edge_otel.api import forwarder
from edge_otel.telemetry.stamp import MAX_GROUPS

# What is passed on is not what a database holds; who sends it is looked up as for every other route.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


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
    # An outage of a test before this one may not be over yet: then no body is waited for.
    wait_for(lambda: post(gateway, token).status_code == 200, "the gateway to take telemetry")
    with ExitStack() as stack:
        held = []

        def taken():
            # More than there are places: some are refused while the database is busy with the token's use.
            held.extend(stack.enter_context(stalled(gateway, slow)) for _ in range(forwarder.PLACES_PER_WORKER))
            return post(gateway, slow).status_code == 503

        wait_for(taken, "the worker's places to be taken")
        assert unread(gateway, slow).startswith(b"HTTP/1.1 503 "), "no more bodies are read into memory"
        assert post(gateway, token).status_code == 200
        for raw in held:
            raw.close()
        wait_for(lambda: post(gateway, slow).status_code == 200, "places to be free again")
    monkeypatch.setattr(forwarder, "BODY_WITHIN", 0.2)
    before = rejected("busy")
    assert unread(gateway, slow).startswith(b"HTTP/1.1 503 ")
    assert rejected("busy") == before + 1
    monkeypatch.undo()
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
