"""The way of telemetry from a queue in memory over the disk to the gateway, with a far end that fails in every way."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from edge_worker import forwarding, outbox
from edge_worker.destination import destinations
from edge_worker.otlp import SIGNALS
from edge_worker.outbox import Outbox
from edge_worker.polling import TokenFile
from edge_worker.settings import Settings, load
from fake_server import CUT, CUT_AFTER, PAGE, Answer, Call, FakeCentral, Telemetry
from payloads import payload

from demo.wait import wait_for

Open = Callable[..., Outbox]


@pytest.fixture
def settings(central: FakeCentral, tmp_path: Path) -> Settings:
    central.settings["otlp"] = True
    (tmp_path / "token").write_text(central.token)
    return load({"server": central.url, "token_file": tmp_path / "token", "name": "site-1"}, None)


@pytest.fixture
def open_outbox(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Open an outbox; variables are those of the daemon's environment."""
    monkeypatch.setattr(outbox, "LINGER", 0.02)
    monkeypatch.setattr(random, "random", lambda: 0.1)
    opened: list[Outbox] = []

    def begin(limit: int = 1 << 20, told: bool | None = True, **variables: str) -> Outbox:
        found = Outbox(tmp_path / "outbox", limit, destinations(settings, TokenFile(settings), variables))
        found.start()
        if told is not None:
            found.told(told)
        opened.append(found)
        return found

    yield begin
    for found in opened:
        found.close()


def names(central: FakeCentral, signal: str) -> list[str]:
    return [name for sent in central.telemetry if sent.signal == signal for name in sent.names]


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "outbox").glob("*.gz"))


def of_gateway(call: Call) -> bool:
    return "/v2/otlp/" in call.path


def failing(central: FakeCentral, answer: object) -> Callable[[], None]:
    """Make the gateway answer so; return what ends it."""

    def fault(call: Call) -> object:
        return answer if of_gateway(call) else None

    central.faults.append(fault)
    return lambda: central.faults.remove(fault)


def test_each_signal_arrives_with_the_token_the_name_and_compressed(central: FakeCentral, open_outbox: Open) -> None:
    box = open_outbox()
    for signal in SIGNALS:
        assert box.put(signal, payload(signal, f"a {signal}"))
    central.wait_for(lambda: len(central.telemetry) == 3)
    assert {(sent.signal, *sent.names) for sent in central.telemetry} == {(s, f"a {s}") for s in SIGNALS}
    for sent in central.telemetry:
        assert sent.call.headers["authorization"] == f"Bearer {central.token}"
        assert sent.call.headers["x-edge-worker"] == "site-1"
        assert sent.call.headers["content-type"] == "application/x-protobuf"
        assert sent.call.headers["content-encoding"] == "gzip"
    wait_for(lambda: box.size == 0, "an empty outbox", timeout=5, pause=0.01)
    assert box.dropped == {}


@pytest.mark.parametrize(
    "answer",
    [CUT, PAGE, Answer(502, raw=b"<html>"), Answer(429, headers={"Retry-After": "1"}), Answer(403)],
    ids=["cut", "page", "502", "429", "403"],
)
def test_what_cannot_be_delivered_is_kept_on_disk_and_arrives_once_and_in_order(
    central: FakeCentral, open_outbox: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    monkeypatch.setattr(forwarding, "BACKOFF_LAST", 0.2)
    heal = failing(central, answer)
    box = open_outbox()
    for number in range(10):
        box.put("traces", payload("traces", f"span {number}"))
        box.put("logs", payload("logs", f"line {number}"))
        seen = len(central.calls)
        if number < 3:
            central.wait_for(lambda seen=seen: len(central.calls) > seen)  # type: ignore[misc]
    wait_for(lambda: {"traces", "logs"} == {name.split("-")[1] for name in files(tmp_path)}, "files", timeout=5)
    heal()
    central.wait_for(lambda: len(names(central, "traces")) >= 10 and len(names(central, "logs")) >= 10)
    wait_for(lambda: box.size == 0 and not files(tmp_path), "an empty outbox", timeout=5, pause=0.01)
    assert names(central, "traces") == [f"span {number}" for number in range(10)]
    assert names(central, "logs") == [f"line {number}" for number in range(10)]
    assert box.dropped == {}


def test_black_hole_holds_nobody_up_and_what_it_swallowed_is_sent_again(
    central: FakeCentral, open_outbox: Open, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_worker.destination.READ_TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as hole:
        monkeypatch.setitem(settings.__dict__, "server", f"http://127.0.0.1:{hole.getsockname()[1]}/edge_worker")
        box = open_outbox()
        began = time.monotonic()
        for number in range(100):
            box.put("traces", payload("traces", f"span {number}"))
        assert time.monotonic() - began < 100 * 0.5, "had each of them waited"
        swallowed, _ = hole.accept()
        with swallowed:
            wait_for(lambda: b"POST" in swallowed.recv(65536), "a request", timeout=5)
            monkeypatch.setattr(box._forwarder._lanes[0].destination, "_url", f"{central.url}/v2/otlp/v1/traces")
            central.wait_for(lambda: len(names(central, "traces")) >= 100)
    assert names(central, "traces") == [f"span {number}" for number in range(100)]


def test_slow_gateway_delays_its_signal_and_gets_nothing_twice(central: FakeCentral, open_outbox: Open) -> None:
    def slow(call: Call) -> None:
        if of_gateway(call):
            central.changed.wait(0.4)

    central.faults.append(slow)
    box = open_outbox()
    for number in range(5):
        box.put("traces", payload("traces", f"span {number}"))
        box.put("metrics", payload("metrics", f"m{number}"))
        time.sleep(0.05)
    central.wait_for(lambda: len(names(central, "traces")) >= 5 and len(names(central, "metrics")) >= 5)
    wait_for(lambda: box.size == 0, "an empty outbox", timeout=5, pause=0.01)
    assert names(central, "traces") == [f"span {number}" for number in range(5)]
    assert names(central, "metrics") == [f"m{number}" for number in range(5)]


def test_signal_that_is_refused_does_not_hold_up_the_others(central: FakeCentral, open_outbox: Open) -> None:
    central.faults.append(lambda call: Answer(503) if call.path.endswith("/v1/logs") else None)
    box = open_outbox()
    for number in range(20):
        for signal in SIGNALS:
            box.put(signal, payload(signal, f"n{number}"))
    central.wait_for(lambda: len(names(central, "traces")) == 20 and len(names(central, "metrics")) == 20)
    assert names(central, "logs") == []
    assert box.size > 0


def test_black_hole_of_one_signal_does_not_hold_up_the_others(central: FakeCentral, open_outbox: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:
        box = open_outbox(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"http://127.0.0.1:{hole.getsockname()[1]}")
        box.put("traces", payload("traces", "swallowed"))
        swallowed, _ = hole.accept()
        with swallowed:
            for signal in ("metrics", "logs"):
                box.put(signal, payload(signal, "n"))
            central.wait_for(lambda: len(central.telemetry) == 2)


def test_bad_record_is_dropped_alone_and_counted(
    central: FakeCentral, open_outbox: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def picky(call: Call) -> Answer | None:
        return Answer(400) if of_gateway(call) and "bad" in Telemetry.of(call).names else None

    central.faults.append(picky)
    box = open_outbox(told=None)
    for number, name in enumerate(("a", "bad", "b", "c"), 1):
        box.put("traces", payload("traces", name))
        wait_for(lambda number=number: len(files(tmp_path)) == number, "a file", timeout=5, pause=0.01)  # type: ignore[misc]
    box.told(True)
    central.wait_for(lambda: len(names(central, "traces")) == 3)
    wait_for(lambda: box.size == 0, "an empty outbox", timeout=5, pause=0.01)
    assert names(central, "traces") == ["a", "b", "c"]
    assert box.dropped == {("traces", "refused"): 1}
    assert "was answered 400" in caplog.text


def judge(central: FakeCentral, status: int, bad: Callable[[Telemetry], bool]) -> None:
    """Make the gateway answer so where a request is bad."""
    central.faults.append(lambda call: Answer(status) if of_gateway(call) and bad(Telemetry.of(call)) else None)


@pytest.mark.parametrize("status", [400, 422])
def test_bad_payload_is_dropped_alone_from_a_record_of_many(
    central: FakeCentral, open_outbox: Open, tmp_path: Path, status: int
) -> None:
    judge(central, status, lambda sent: "bad" in sent.names)
    box = open_outbox(told=None)
    good = [f"good {number}" for number in range(20)]
    for name in (*good[:7], "bad", *good[7:]):
        box.put("traces", payload("traces", name))
    wait_for(lambda: files(tmp_path), "a file", timeout=5, pause=0.01)
    box.told(True)
    central.wait_for(lambda: sorted(names(central, "traces")) == sorted(good))
    wait_for(lambda: box.size == 0, "an empty outbox", timeout=5, pause=0.01)
    assert box.dropped == {("traces", "refused"): 1}


def test_record_that_is_too_large_for_the_far_end_arrives_in_parts(central: FakeCentral, open_outbox: Open) -> None:
    judge(central, 413, lambda sent: len(sent.payload) > 150_000)
    box = open_outbox()
    for number in range(8):
        box.put("logs", payload("logs", f"line {number}", 60_000))
    central.wait_for(lambda: sorted(names(central, "logs")) == [f"line {number}" for number in range(8)])
    wait_for(lambda: box.size == 0, "an empty outbox", timeout=5, pause=0.01)
    assert box.dropped == {}


def test_record_at_which_the_far_end_fails_lets_others_go_and_is_dropped_in_the_end(
    central: FakeCentral, open_outbox: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_worker.plan.BACKOFF_FIRST", 0.01)
    monkeypatch.setattr(outbox, "LINGER_LONG", 0.02)
    judge(central, 500, lambda sent: "bad" in sent.names)
    box = open_outbox()
    box.put("traces", payload("traces", "bad"))
    box.put("traces", payload("traces", "beside it"))
    central.wait_for(lambda: [call for call in central.calls if of_gateway(call)])
    for number in range(3 * forwarding.BLAMED):
        box.put("traces", payload("traces", f"span {number}"))
        central.wait_for(lambda number=number: f"span {number}" in names(central, "traces"))  # type: ignore[misc]
    wait_for(lambda: box.size == 0, "an empty outbox", timeout=5, pause=0.01)
    assert "beside it" in names(central, "traces")
    assert box.dropped == {("traces", "refused"): 1}


def test_outage_of_500_loses_nothing_however_long(
    central: FakeCentral, open_outbox: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "backoff", lambda failures, draw: 0.001)
    monkeypatch.setattr(forwarding, "BLAMED", 2)
    heal = failing(central, Answer(500))
    box = open_outbox(told=None)
    for number in range(3):
        box.put("traces", payload("traces", f"span {number}"))
        wait_for(lambda number=number: len(files(tmp_path)) > number, "a file", timeout=5, pause=0.01)  # type: ignore[misc]
    box.told(True)
    central.wait_for(lambda: sum(map(of_gateway, central.calls)) > 4 * forwarding.SUSPECT * forwarding.BLAMED)
    heal()
    central.wait_for(lambda: sorted(names(central, "traces")) == [f"span {number}" for number in range(3)])
    assert box.dropped == {}


def test_gateway_that_refuses_all_is_told_of_once(
    central: FakeCentral, open_outbox: Open, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "RECORD", 1)
    failing(central, Answer(415))
    box = open_outbox()
    for number in range(5):
        box.put("logs", payload("logs", f"line {number}"))
    wait_for(lambda: box.dropped == {("logs", "refused"): 5}, "five drops", timeout=5, pause=0.01)
    assert caplog.text.count("was answered 415") == 1


def test_records_are_merged_to_few_requests_of_bounded_size(
    central: FakeCentral, open_outbox: Open, tmp_path: Path
) -> None:
    box = open_outbox(told=None, limit=1 << 24)
    for number in range(300):
        box.put("metrics", payload("metrics", f"m{number}", size=10_000))
    wait_for(
        lambda: sum(int(name.split("-")[2].split(".")[0]) for name in files(tmp_path)) == 300, "the disk", timeout=5
    )
    box.told(True)
    central.wait_for(lambda: len(names(central, "metrics")) == 300)
    assert names(central, "metrics") == [f"m{number}" for number in range(300)]
    assert len(central.telemetry) <= 4
    assert max(len(sent.payload) for sent in central.telemetry) <= forwarding.BATCH


def test_what_comes_after_a_delivery_gathers_for_the_next_request(
    central: FakeCentral, open_outbox: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "GATHER", 3.0)
    box = open_outbox()
    box.put("traces", payload("traces", "first"))
    wait_for(lambda: names(central, "traces") and box.size == 0, "the first", timeout=5, pause=0.01)
    for number in range(3):
        box.put("traces", payload("traces", f"span {number}"))
        wait_for(lambda n=number: len(files(tmp_path)) == n + 1, "its file", timeout=5, pause=0.01)
    central.wait_for(lambda: len(central.telemetry) == 2)
    assert central.telemetry[1].names == ["span 0", "span 1", "span 2"]


def test_backlog_gathers_to_fewer_files(open_outbox: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "BACKLOG", 4096)
    monkeypatch.setattr(outbox, "LINGER_LONG", 0.3)
    box = open_outbox(told=None)
    box.put("logs", payload("logs", "first"))
    wait_for(lambda: files(tmp_path), "a file", timeout=5, pause=0.01)
    for number in range(20):
        box.put("logs", payload("logs", f"line {number}"))
        time.sleep(0.005)
    wait_for(lambda: len(files(tmp_path)) > 1, "a second file", timeout=5, pause=0.01)
    assert files(tmp_path)[1].endswith("-logs-20.otlp.gz")


def test_before_the_first_contact_all_waits_and_without_a_collector_nothing_more_is_taken(
    central: FakeCentral, open_outbox: Open, tmp_path: Path
) -> None:
    box = open_outbox(told=None)
    box.put("traces", payload("traces", "early"))
    wait_for(lambda: files(tmp_path), "a file", timeout=5, pause=0.01)
    box.told(False)
    assert not box.put("traces", payload("traces", "unwanted"))
    assert not [call for call in central.calls if of_gateway(call)]
    # Another replica knows better.
    box.told(True)
    assert box.put("traces", payload("traces", "wanted"))
    central.wait_for(lambda: names(central, "traces") == ["early", "wanted"])
    assert box.dropped == {}


def test_what_nobody_has_wanted_for_long_is_forgotten(
    open_outbox: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FORGET_AFTER", 0.1)
    monkeypatch.setattr(outbox, "TELL", 0.05)
    box = open_outbox(told=None)
    box.put("traces", payload("traces", "early"))
    wait_for(lambda: files(tmp_path), "a file", timeout=5, pause=0.01)
    box.told(False)
    wait_for(lambda: not files(tmp_path), "an empty folder", timeout=5, pause=0.01)
    assert box.dropped == {}


def test_gateway_that_has_lost_its_collector_keeps_the_data_here_for_a_while(
    central: FakeCentral, open_outbox: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(forwarding, "NO_COLLECTOR_PAUSE", 0.3)
    heal = failing(central, Answer(404))
    box = open_outbox()
    box.put("traces", payload("traces", "patient"))
    central.wait_for(lambda: [call for call in central.calls if of_gateway(call)])
    heal()
    central.wait_for(lambda: names(central, "traces") == ["patient"])
    assert "was answered 404" in caplog.text


def test_rotated_token_is_read_when_the_old_one_is_refused(
    central: FakeCentral, open_outbox: Open, tmp_path: Path
) -> None:
    box = open_outbox()
    central.token = "ewt_two.x"
    (tmp_path / "token").write_text(central.token)
    box.put("traces", payload("traces", "span"))
    central.wait_for(lambda: names(central, "traces") == ["span"])


def test_close_delivers_what_it_can_and_leaves_the_rest_for_the_next_start(
    central: FakeCentral, open_outbox: Open, tmp_path: Path
) -> None:
    first = open_outbox()
    first.put("traces", payload("traces", "last word"))
    first.close()
    assert names(central, "traces") == ["last word"]

    heal = failing(central, Answer(503))
    second = open_outbox()
    for number in range(5):
        second.put("logs", payload("logs", f"line {number}"))
    began = time.monotonic()
    second.close()
    assert time.monotonic() - began < 2
    assert files(tmp_path)
    heal()
    open_outbox()
    central.wait_for(lambda: names(central, "logs") == [f"line {number}" for number in range(5)])


def test_lost_answer_means_that_it_is_sent_again(central: FakeCentral, open_outbox: Open) -> None:
    lost = [CUT_AFTER]
    central.faults.append(lambda call: lost.pop() if of_gateway(call) and lost else None)
    box = open_outbox()
    box.put("traces", payload("traces", "at least once"))
    central.wait_for(lambda: names(central, "traces") == ["at least once"] * 2)


def test_more_than_fits_the_memory_is_dropped_and_counted(
    open_outbox: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox, "MEMORY", 1000)
    monkeypatch.setattr(outbox, "LINGER", 0.3)
    box = open_outbox(told=None)
    taken = [box.put("logs", payload("logs", "x" * 100)) for _ in range(100)]
    assert 0 < sum(taken) < 100
    wait_for(lambda: "were dropped" in caplog.text, "a word", timeout=5, pause=0.01)
    assert box.dropped == {("logs", "memory_full"): 100 - sum(taken)}


def test_collector_of_the_site_gets_all_and_never_the_token(central: FakeCentral, open_outbox: Open) -> None:
    box = open_outbox(
        told=False,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"{central.origin}/",
        OTEL_EXPORTER_OTLP_HEADERS="x-key=a%20b,X-Other=1",
    )
    for signal in SIGNALS:
        assert box.put(signal, payload(signal, "local"))
    central.wait_for(lambda: len(central.collected) == 3)
    for sent in central.collected:
        assert sent.call.headers["x-key"] == "a b"
        assert "authorization" not in sent.call.headers
        assert "x-edge-worker" not in sent.call.headers
        assert central.token not in str(sent.call)
    assert central.telemetry == []


def test_collector_of_one_signal_leaves_the_others_to_the_gateway(central: FakeCentral, open_outbox: Open) -> None:
    box = open_outbox(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{central.origin}/v1/traces")
    for signal in SIGNALS:
        box.put(signal, payload(signal, "n"))
    central.wait_for(lambda: len(central.collected) + len(central.telemetry) == 3)
    assert [sent.signal for sent in central.collected] == ["traces"]
