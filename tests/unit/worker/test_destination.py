"""Where telemetry goes, by the standard variables; what cannot be used is said at the start."""

from __future__ import annotations

from pathlib import Path

import pytest
from edge_worker.destination import Collector, Gateway, destinations
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
        ({"ENDPOINT": "http://c", "TIMEOUT": "soon"}, "TIMEOUT is not a number"),
    ],
)
def test_unusable_variable_is_named(settings: Settings, variables: dict[str, str], said: str) -> None:
    with pytest.raises(BadSetting, match=said):
        kinds(settings, **variables)
