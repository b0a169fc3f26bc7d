"""What tasks find in their environment: the way for their telemetry, and nothing that is the daemon's own."""

from __future__ import annotations

import pytest
from edge_worker.environment import for_tasks
from requests.utils import should_bypass_proxies

LOOPBACK = "http://127.0.0.1:4000"


def tasks(mine: dict[str, str] | None = None, users: dict[str, str] | None = None) -> dict[str, str]:
    return for_tasks(mine or {}, users or {}, "site 1", LOOPBACK)


def test_telemetry_of_tasks_goes_to_the_daemon() -> None:
    env = tasks()
    assert env["OTEL_EXPORTER_OTLP_ENDPOINT"] == LOOPBACK
    assert env["OTEL_EXPORTER_OTLP_PROTOCOL"] == "http/protobuf"
    assert {env[f"OTEL_{signal}_EXPORTER"] for signal in ("TRACES", "METRICS", "LOGS")} == {"otlp_proto_http"}
    assert env["OTEL_EXPORTER_OTLP_TIMEOUT"] == "2"
    assert env["AIRFLOW__TRACES__OTEL_ON"] == "True"
    assert env["OTEL_SERVICE_NAME"] == "airflow-task"
    assert env["OTEL_RESOURCE_ATTRIBUTES"] == "service.namespace=airflow,edge.worker.name=site%201"


def test_where_the_daemon_sends_and_with_what_key_is_not_told_to_tasks() -> None:
    env = tasks(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector/v1/traces",
            "OTEL_EXPORTER_OTLP_HEADERS": "x-key=secret",
            "OTEL_EXPORTER_OTLP_LOGS_HEADERS": "x-key=secret",
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": "/secret",
            "EDGE_WORKER_TOKEN_FILE": "/secret",
        }
    )
    assert env["OTEL_EXPORTER_OTLP_ENDPOINT"] == LOOPBACK
    assert [key for key, value in env.items() if "secret" in value or "collector" in value] == []


def test_endpoint_of_the_users_file_wins_with_its_headers() -> None:
    users = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://mine:4317", "OTEL_EXPORTER_OTLP_HEADERS": "x=1"}
    env = tasks({"OTEL_EXPORTER_OTLP_HEADERS": "daemon"}, users)
    assert users.items() <= env.items()
    assert env["OTEL_TRACES_EXPORTER"] == "otlp_proto_http"
    assert "OTEL_EXPORTER_OTLP_PROTOCOL" not in env
    assert tasks({}, {**users, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})["OTEL_TRACES_EXPORTER"] == "otlp_proto_grpc"


def test_users_names_and_attributes_are_kept() -> None:
    env = tasks({}, {"OTEL_SERVICE_NAME": "mine", "OTEL_RESOURCE_ATTRIBUTES": "service.namespace=n,a=b, "})
    assert env["OTEL_SERVICE_NAME"] == "mine"
    assert env["OTEL_RESOURCE_ATTRIBUTES"] == "service.namespace=n,a=b,edge.worker.name=site%201"
    assert "OTEL_SERVICE_NAME" not in tasks({"OTEL_RESOURCE_ATTRIBUTES": "service.name=x"})


def test_standard_name_of_the_exporter_means_http() -> None:
    assert tasks({"OTEL_TRACES_EXPORTER": "otlp"})["OTEL_TRACES_EXPORTER"] == "otlp_proto_http"


@pytest.mark.parametrize("signal", ["TRACES", "METRICS", "LOGS"])
def test_exporters_of_the_daemons_environment_speak_what_the_daemon_understands(signal: str) -> None:
    name = f"OTEL_{signal}_EXPORTER"
    assert tasks({name: "otlp_proto_grpc"})[name] == "otlp_proto_http"
    for other in ("none", "console"):
        assert tasks({name: other})[name] == other
    assert tasks({name: "none"}, {name: "otlp_proto_grpc"})[name] == "otlp_proto_grpc"
    theirs = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://mine:4317"}
    assert tasks({name: "otlp_proto_grpc"}, theirs)[name] == "otlp_proto_grpc"


def test_protocol_of_the_users_file_wins() -> None:
    users = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    env = tasks({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, users)
    assert users.items() <= env.items()
    assert env["OTEL_TRACES_EXPORTER"] == "otlp_proto_grpc"


def test_exporter_none_turns_airflows_tracing_off_which_would_fail_with_it() -> None:
    env = tasks({}, {"OTEL_TRACES_EXPORTER": "none"})
    assert env["OTEL_TRACES_EXPORTER"] == "none"
    assert "AIRFLOW__TRACES__OTEL_ON" not in env


@pytest.mark.parametrize("endpoint", [None, LOOPBACK])
def test_nothing_is_set_where_telemetry_is_off(endpoint: str | None) -> None:
    off = {"OTEL_SDK_DISABLED": "True"} if endpoint else {}
    env = for_tasks(off, {}, "site-1", endpoint)
    assert [key for key in env if "OTEL" in key and key != "OTEL_SDK_DISABLED"] == []


@pytest.mark.parametrize(
    "spared",
    [
        {},
        {"NO_PROXY": "a.example"},
        {"no_proxy": "a.example", "NO_PROXY": "b.example"},
        {"no_proxy": "*"},
        {"NO_PROXY": "*", "no_proxy": "a.example"},
    ],
)
def test_proxy_is_kept_out_of_calls_to_the_daemon(spared: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    env = tasks({"HTTP_PROXY": "http://proxy:3128", **spared})
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, env[name])
    assert should_bypass_proxies(f"{LOOPBACK}/v1/traces", None)
    assert should_bypass_proxies("http://a.example", None) is bool(spared)
    assert should_bypass_proxies("http://b.example", None) is any(
        text in ("*", "b.example") for text in spared.values()
    )
    assert "no_proxy" not in tasks()
