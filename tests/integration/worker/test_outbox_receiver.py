"""The endpoint for task processes, over real sockets: what it takes, what it refuses, and what cannot hurt it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from edge_worker import conversation, endpoint, otlp, receiver
from edge_worker.outbox import Outbox
from edge_worker.receiver import PORT_FILE, Receiver, listen
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from payloads import names, payload

from demo.wait import wait_for

PROTOBUF = {"Content-Type": "application/x-protobuf"}
HEAD = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: %d\r\n"


class Keeper(Outbox):
    """An outbox that keeps what it is given: the far end of the receiver."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, 1 << 20, {})
        self.kept: list[tuple[str, bytes]] = []
        self.room = True
        self.wants = True

    def wanted(self, signal: str) -> bool:
        return self.wants

    def put(self, signal: str, payload: bytes, items: int = 1) -> bool:
        if self.room and self.wants:
            self.kept.append((signal, payload))
        return self.room and self.wants

    @property
    def names(self) -> list[str]:
        return [name for signal, body in self.kept for name in names(signal, body)]


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return Keeper(tmp_path / "outbox")


@pytest.fixture
def url(keeper: Keeper, tmp_path: Path) -> Iterator[str]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    found = Receiver(listen(tmp_path), keeper)
    asyncio.run_coroutine_threadsafe(found.start(), loop).result(10)
    assert found.url is not None
    yield found.url

    async def close() -> None:
        found.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), 10)

    asyncio.run_coroutine_threadsafe(close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


def answers(url: str, keeper: Keeper) -> bool:
    """The receiver works."""
    before = len(keeper.kept)
    found = requests.post(f"{url}/v1/traces", payload("traces", "still there"), headers=PROTOBUF, timeout=5)
    return found.status_code == 200 and len(keeper.kept) == before + 1


def begin(client: socket.socket, length: int) -> None:
    """Begin a request; the receiver waits for its body."""
    client.sendall(HEAD % length + b"Expect: 100-continue\r\n\r\n")
    assert client.recv(100).startswith(b"HTTP/1.1 100")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
def test_each_signal_is_taken(url: str, keeper: Keeper, zipped: bool, chunked: bool) -> None:
    with requests.Session() as session:
        for signal in ("traces", "metrics", "logs"):
            sent = payload(signal, f"a {signal}", size=100_000)
            body = gzip.compress(sent) if zipped else sent
            headers = {**PROTOBUF, **({"Content-Encoding": "gzip"} if zipped else {})}
            data = iter([body[:10], body[10:]]) if chunked else body
            found = session.post(f"{url}/v1/{signal}", data, headers=headers, timeout=5)
            assert (found.status_code, found.content) == (200, b"")
            assert found.headers["Content-Type"] == "application/x-protobuf"
            assert keeper.kept[-1] == (signal, sent)
    assert keeper.names == ["a traces", "a metrics", "a logs"]


def test_connection_is_kept_and_requests_may_follow_at_once(url: str, keeper: Keeper) -> None:
    one = [payload("traces", name) for name in ("first", "second")]
    with socket.create_connection(address(url)) as client:
        client.sendall(b"".join(HEAD % len(body) + b"\r\n" + body for body in one))
        wait_for(lambda: keeper.names == ["first", "second"], "both", timeout=5, pause=0.01)
        client.sendall(HEAD % len(one[0]) + b"\r\n" + one[0])
        wait_for(lambda: len(keeper.names) == 3, "a third", timeout=5, pause=0.01)
        client.settimeout(5)
        assert client.recv(65536).count(b"200") >= 1


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "said"),
    [
        ("POST", "/v1/traces", {"Content-Type": "application/json"}, b"{}", 415, "http/protobuf"),
        ("POST", "/v1/traces", {"Content-Type": "application/grpc"}, b"\0\0", 415, "http/protobuf"),
        ("POST", "/v1/traces", {}, b"x", 415, "missing"),
        ("POST", "/v1/traces", {**PROTOBUF, "Content-Encoding": "br"}, b"x", 415, "br"),
        ("POST", "/v1/traces", PROTOBUF, b"\xff" * 100, 400, "not an ExportTraceServiceRequest"),
        ("POST", "/v1/logs", {**PROTOBUF, "Content-Encoding": "gzip"}, b"not gzip", 400, "gzip"),
        ("POST", "/v1/traces", {**PROTOBUF, "Origin": "https://evil.example"}, b"", 403, "browsers"),
        ("GET", "/v1/traces", {}, b"", 405, "POST"),
        ("POST", "/v1/other", PROTOBUF, b"", 404, "/v1/traces"),
        ("GET", "/", {}, b"", 404, "/v1/traces"),
    ],
)
def test_what_is_not_otlp_is_refused_with_the_reason(
    url: str, keeper: Keeper, method: str, path: str, headers: dict[str, str], body: bytes, status: int, said: str
) -> None:
    found = requests.request(method, url + path, data=body, headers=headers, timeout=5)
    assert found.status_code == status
    assert said in found.text
    assert keeper.kept == []
    reasons = {400: "invalid", 415: "not_protobuf", 403: "refused_sender"}
    assert [(reason, n) for (_, reason), n in keeper.dropped.items()] == (
        [(reasons[status], 1)] if status in reasons else []
    )
    assert answers(url, keeper)


@pytest.mark.parametrize("start", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01 TLS hello\r\n\r\n"])
def test_other_protocols_are_told_and_closed(url: str, keeper: Keeper, start: bytes) -> None:
    with socket.create_connection(address(url), timeout=5) as client:
        client.sendall(start)
        client.shutdown(socket.SHUT_WR)
        said = b"".join(iter(lambda: client.recv(65536), b""))
    assert said.startswith(b"HTTP/1.1 4")
    assert b"http/protobuf" in said
    assert answers(url, keeper)


def test_hundred_megabytes_are_refused_by_their_declared_length(url: str, keeper: Keeper) -> None:
    began = time.monotonic()
    found = requests.post(f"{url}/v1/traces", b"\0" * 100_000_000, headers=PROTOBUF, timeout=10)
    assert found.status_code == 413
    assert "smaller batches" in found.text
    assert keeper.dropped == {("traces", "too_large"): 1}
    assert time.monotonic() - began < 5
    assert answers(url, keeper)


def test_declared_length_is_judged_before_any_of_it_has_come(url: str, keeper: Keeper) -> None:
    with socket.create_connection(address(url), timeout=5) as client:
        client.sendall(HEAD % 100_000_000 + b"\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413")


def test_hundred_megabytes_of_undeclared_length_are_refused_on_the_way(url: str, keeper: Keeper) -> None:
    sent = 0
    with socket.create_connection(address(url), timeout=10) as client:
        client.sendall(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n")
        client.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
        client.setblocking(False)
        chunk = rest = b"10000\r\n" + b"\0" * 65536 + b"\r\n"
        answer = b""
        while not answer and sent < 100_000_000:
            with contextlib.suppress(BlockingIOError):
                now = client.send(rest)
                sent, rest = sent + now, rest[now:] or chunk
            with contextlib.suppress(BlockingIOError):
                answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")
    assert sent < 50_000_000
    assert answers(url, keeper)


def test_gzip_bomb_stops_at_the_limit(url: str, keeper: Keeper) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    assert len(bomb) < conversation.BODY_MAX
    headers = {**PROTOBUF, "Content-Encoding": "gzip"}
    found = requests.post(f"{url}/v1/logs", bomb, headers=headers, timeout=10)
    assert found.status_code == 413
    assert answers(url, keeper)


def test_more_than_the_rate_is_dropped_counted_and_answered_with_success_in_part(
    url: str, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = gzip.compress(payload("traces", "large", size=12_000_000))
    headers = {**PROTOBUF, "Content-Encoding": "gzip"}
    found = [requests.post(f"{url}/v1/traces", large, headers=headers, timeout=10) for _ in range(4)]
    assert [answer.status_code for answer in found] == [200] * 4
    told = ExportTraceServiceResponse.FromString(found[-1].content).partial_success
    assert told.rejected_spans == 1
    assert "bytes a second" in told.error_message
    assert 0 < keeper.dropped["traces", "rate_limit"] == 4 - len(keeper.kept)


def test_full_outbox_is_success_in_part_and_an_unwanted_signal_is_success(url: str, keeper: Keeper) -> None:
    keeper.room = False
    found = requests.post(f"{url}/v1/traces", payload("traces", "x"), headers=PROTOBUF, timeout=5)
    assert found.status_code == 200
    assert ExportTraceServiceResponse.FromString(found.content).partial_success.rejected_spans == 1
    keeper.wants = False
    found = requests.post(f"{url}/v1/traces", payload("traces", "x"), headers=PROTOBUF, timeout=5)
    assert (found.status_code, found.content) == (200, b"")


def test_bodies_that_are_too_much_together_are_dropped_and_the_memory_given_back(
    url: str, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "HELD_MAX", 300_000)
    body = payload("traces", "x", size=200_000)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(address(url), timeout=5)) for _ in range(3)]
        for client in clients:
            begin(client, len(body))
            client.sendall(body[:-1])
        for client in clients:
            client.sendall(body[-1:])
        said = [client.recv(65536) for client in clients]
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in said)
    assert 2 <= keeper.dropped["traces", "busy"] == 3 - len(keeper.kept)
    big = requests.post(f"{url}/v1/traces", payload("traces", "x", size=290_000), headers=PROTOBUF, timeout=5)
    assert big.content == b""


def test_slow_sender_is_hung_up_on(url: str, keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "REQUEST_WITHIN", 0.3)
    with socket.create_connection(address(url), timeout=5) as client:
        client.sendall(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Le")
        assert client.recv(100) == b""
    assert answers(url, keeper)


def test_thousand_connections_leave_room_for_the_next(url: str, keeper: Keeper) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(socket.create_connection(address(url), timeout=5))
        assert answers(url, keeper)


def test_busy_connections_are_not_hung_up_on_for_new_ones(
    url: str, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "CONNECTIONS", 3)
    body = payload("traces", "patient")
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(socket.create_connection(address(url), timeout=5)) for _ in range(3)]
        for client in busy:
            begin(client, len(body))
        refused = stack.enter_context(socket.create_connection(address(url), timeout=5))
        with contextlib.suppress(ConnectionResetError):
            assert refused.recv(100) == b""
        for client in busy:
            client.sendall(body)
            assert client.recv(100).startswith(b"HTTP/1.1 200")


def test_requests_that_do_not_come_whole_give_way_to_new_ones(
    url: str, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "CONNECTIONS", 3)
    monkeypatch.setattr(endpoint, "SLOW", 0.0)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            begin(stack.enter_context(socket.create_connection(address(url), timeout=5)), 100)
        assert answers(url, keeper)


def test_rate_is_judged_before_anything_is_unpacked(url: str, keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "unzip", None)
    bomb = gzip.compress(payload("traces", "large", size=12_000_000))
    monkeypatch.setattr(receiver.Allowance, "take", lambda *_: False)
    headers = {**PROTOBUF, "Content-Encoding": "gzip"}
    assert requests.post(f"{url}/v1/traces", bomb, headers=headers, timeout=10).status_code == 200
    assert keeper.dropped == {("traces", "rate_limit"): 1}


def test_port_is_kept_and_another_taken_where_it_is_in_use(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = listen(tmp_path)
    assert first is not None
    with first:
        port = first.getsockname()[1]
        assert first.getsockname()[0] == "127.0.0.1"
        first.listen()
        second = listen(tmp_path)
        assert second is not None
        with second:
            assert second.getsockname()[1] != port
    assert f"cannot listen at 127.0.0.1:{port}" in caplog.text
    third = listen(tmp_path)
    assert third is not None
    with third:
        assert third.getsockname()[1] == int((tmp_path / PORT_FILE).read_text()) != port
