"""Where telemetry goes, by the standard variables; what cannot be used is said at the start."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest
from edge_worker import destination
from edge_worker.destination import Collector, Destination, Gateway, destinations
from edge_worker.faults import BadSetting
from edge_worker.polling import TokenFile
from edge_worker.settings import Settings, load


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "token").write_text("ewt_1.x")
    return load({"server": "https://central.example/edge_worker", "token_file": tmp_path / "token"}, None)


def kinds(settings: Settings, **variables: str) -> dict[str, type]:
    found = destinations(settings, TokenFile(settings), {f"OTEL_EXPORTER_OTLP_{k}": v for k, v in variables.items()})
    return {signal: type(to) for signal, to in found.items()}


def collector(settings: Settings, url: str, **variables: str) -> Destination:
    named = {"ENDPOINT": url, **variables}
    return destinations(settings, TokenFile(settings), {f"OTEL_EXPORTER_OTLP_{k}": v for k, v in named.items()})["logs"]


def test_gateway_unless_a_variable_names_a_collector(settings: Settings) -> None:
    assert set(kinds(settings).values()) == {Gateway}
    assert set(kinds(settings, ENDPOINT="  ", PROTOCOL="grpc").values()) == {Gateway}
    assert set(kinds(settings, ENDPOINT="http://c:4318").values()) == {Collector}
    mixed = kinds(settings, METRICS_ENDPOINT="http://c:4318/x")
    assert mixed == {"traces": Gateway, "metrics": Collector, "logs": Gateway}


def test_protocol_of_a_signal_wins(settings: Settings) -> None:
    assert kinds(settings, LOGS_ENDPOINT="http://c/l", PROTOCOL="grpc", LOGS_PROTOCOL="http/protobuf")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"ENDPOINT": "http://c:4317", "PROTOCOL": "grpc"}, "PROTOCOL is grpc"),
        ({"ENDPOINT": "http://c:4317", "LOGS_PROTOCOL": "http/json"}, "LOGS_PROTOCOL is http/json"),
        ({"ENDPOINT": "collector:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT is not a full URL"),
        ({"TRACES_ENDPOINT": "http://c:99999/x"}, "TRACES_ENDPOINT is not a full URL"),
        ({"ENDPOINT": "http://c", "CERTIFICATE": "/nonexistent"}, "cannot read /nonexistent"),
        ({"ENDPOINT": "http://c", "CLIENT_KEY": "/nonexistent"}, "cannot read /nonexistent"),
        *(
            ({"ENDPOINT": "http://c", "TIMEOUT": t}, "TIMEOUT is not a number")
            for t in ("soon", "0", "-1", "nan", "inf")
        ),
        *(
            ({"ENDPOINT": "http://c", "HEADERS": text}, "HEADERS holds what cannot be sent as a header$")
            for text in ("a=s%0Acret", "a=s%C3%A9cret", "a b=secret", "a=secret%00")
        ),
    ],
)
def test_unusable_variable_is_named(settings: Settings, variables: dict[str, str], said: str) -> None:
    with pytest.raises(BadSetting, match=said):
        kinds(settings, **variables)


def test_white_space_around_a_header_is_not_sent(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        told: list[bytes] = []

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                told.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert collector(settings, url, HEADERS="authorization=Bearer%20s3cret%0A").send(b"x").status == 200
        thread.join()
    assert b"authorization: Bearer s3cret\r\n" in told[0]


@pytest.mark.parametrize("drip", [b"X: y\r\n", b"x"], ids=["headers", "body"])
def test_far_end_that_drips_is_cut_off(settings: Settings, monkeypatch: pytest.MonkeyPatch, drip: bytes) -> None:
    monkeypatch.setattr(destination, "CONNECT_TIMEOUT", 0.2)
    monkeypatch.setattr(destination, "SLACK", 0.2)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                end = b"" if drip.endswith(b"\n") else b"Content-Length: 1000\r\n\r\n"
                connection.sendall(b"HTTP/1.1 200 OK\r\n" + end)
                while not over.wait(0.05):
                    connection.sendall(drip)

        thread = threading.Thread(target=serve)
        thread.start()
        began = time.monotonic()
        try:
            url = f"http://127.0.0.1:{server.getsockname()[1]}"
            collector(settings, url, TIMEOUT="0.2").send(b"x")
            assert time.monotonic() - began < 2
        finally:
            over.set()
            thread.join()
