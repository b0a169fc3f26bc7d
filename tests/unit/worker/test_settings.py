"""Where settings come from, and which one wins."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from edge_worker.environment import EXECUTION_API_URL, EXECUTORS, for_job, for_tasks, read_file
from edge_worker.faults import BadSetting
from edge_worker.settings import Pace, execution_api_url, load, pace, state_dir
from pydantic import ValidationError

from edge_otel.wire import WorkerSettings

TOLD = WorkerSettings(
    heartbeat_interval=7,
    poll_interval=8,
    log_interval=9,
    log_chunk_bytes=5000,
    execution_api_url="https://told.example/execution/",
    server_time=datetime(2026, 1, 1, tzinfo=UTC),
)


@pytest.fixture
def needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    import os

    for name in list(os.environ):
        if name.startswith("EDGE_WORKER_"):
            monkeypatch.delenv(name)
    (tmp_path / "token").write_text("ewt_1.x")
    return {"server": "https://central.example/edge_worker", "token_file": str(tmp_path / "token")}


def test_flag_wins_over_environment_and_that_over_the_file(
    needed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "worker.toml"
    file.write_text('name = "toml"\nconcurrency = 2\nqueues = ["x", "y"]\nteam = "t"\n')
    monkeypatch.setenv("EDGE_WORKER_NAME", "env")
    monkeypatch.setenv("EDGE_WORKER_CONCURRENCY", "3")
    chosen = load({**needed, "name": "flag"}, file)
    assert (chosen.name, chosen.concurrency, chosen.queues, chosen.team) == ("flag", 3, ["x", "y"], "t")


def test_queues_are_a_list_in_flags_and_environment(needed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert load({**needed, "queues": "a, b,,c"}, None).queues == ["a", "b", "c"]
    monkeypatch.setenv("EDGE_WORKER_QUEUES", "d,e")
    assert load(needed, None).queues == ["d", "e"]


def test_file_may_be_named_by_the_environment(
    needed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "worker.toml"
    file.write_text(f'concurrency = 5\nstate_dir = "{tmp_path}/s"\n')
    monkeypatch.setenv("EDGE_WORKER_CONFIG", str(file))
    assert load(needed, None).concurrency == 5
    assert state_dir(None, None) == tmp_path / "s"


@pytest.mark.parametrize(("text", "words"), [("unknown = 1", "unknown setting"), ("= nonsense", "--config")])
def test_bad_file_is_told(needed: dict[str, str], tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "worker.toml"
    file.write_text(text)
    with pytest.raises(BadSetting, match=words):
        load(needed, file)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"server": None}, "--server is missing: give it, or set EDGE_WORKER_SERVER"),
        ({"server": "ftp://x"}, "give a full URL"),
        ({"token_file": "/nonexistent"}, "cannot read /nonexistent"),
        ({"concurrency": "none"}, "--concurrency (EDGE_WORKER_CONCURRENCY)"),
        ({"concurrency": "0"}, "--concurrency"),
        ({"task_python": "/nonexistent/python"}, "is not a program"),
        ({"name": "a/b"}, "--name"),
        ({"client_cert": "/dev/null"}, "belong together"),
        ({"proxy": "proxy:3128"}, "--proxy"),
        ({"proxy": "http://user:password@proxy:99999"}, "--proxy"),
        ({"launch": "magic"}, "--launch"),
        ({"drain_timeout": "-1"}, "--drain-timeout"),
    ],
)
def test_bad_setting_is_told_in_one_line(needed: dict[str, str], flags: dict[str, str | None], words: str) -> None:
    with pytest.raises(BadSetting) as problem:
        load({name: value for name, value in {**needed, **flags}.items() if value is not None}, None)
    assert words in str(problem.value)
    assert "\n" not in str(problem.value)


def test_config_that_is_missing_is_told(needed: dict[str, str]) -> None:
    with pytest.raises(BadSetting, match="is not a file"):
        load(needed, Path("/nonexistent.toml"))


def test_secret_in_the_wrong_place_is_not_repeated(needed: dict[str, str]) -> None:
    with pytest.raises(BadSetting) as problem:
        load({**needed, "server": "https://me:hunter2@central.example"}, None)
    assert "hunter2" not in str(problem.value)


def test_settings_are_frozen(needed: dict[str, str]) -> None:
    chosen = load(needed, None)
    with pytest.raises(ValidationError):
        chosen.concurrency = 9  # type: ignore[misc]


def test_local_pace_wins_over_the_servers_and_that_over_the_default(needed: dict[str, str]) -> None:
    assert pace(load(needed, None), None) == Pace()
    assert pace(load(needed, None), TOLD) == Pace(7, 8, 9, 5000)
    assert pace(load({**needed, "heartbeat_interval": "60"}, None), TOLD).heartbeat_interval == 60


def test_pace_of_a_mad_server_is_bounded(needed: dict[str, str]) -> None:
    mad = TOLD.model_copy(update={"heartbeat_interval": -5, "log_chunk_bytes": 0, "poll_interval": 1e9})
    found = pace(load(needed, None), mad)
    assert found.heartbeat_interval > 0
    assert found.log_chunk_bytes >= 1024
    assert found.poll_interval <= 3600


def test_execution_api_is_local_or_told_or_beside_the_edge_api(needed: dict[str, str]) -> None:
    assert execution_api_url(load(needed, None), None) == "https://central.example/execution/"
    deep = load({**needed, "server": "https://c.example/air/edge_worker/"}, None)
    assert execution_api_url(deep, None) == "https://c.example/air/execution/"
    assert execution_api_url(load(needed, None), TOLD.execution_api_url) == TOLD.execution_api_url
    local = load({**needed, "execution_api_url": "http://here.example/execution/"}, None)
    assert execution_api_url(local, TOLD.execution_api_url) == "http://here.example/execution/"


@pytest.mark.parametrize("end", ["", "/v1/rpcapi", "/v1/rpcapi/"])
def test_server_may_be_given_as_edge3_has_it(needed: dict[str, str], monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setenv("EDGE_WORKER_SERVER", f"https://c.example/air/edge_worker{end}")
    chosen = load({"token_file": needed["token_file"]}, None)
    assert chosen.server == "https://c.example/air/edge_worker"
    assert execution_api_url(chosen, None) == "https://c.example/air/execution/"


def test_environment_file_is_read_and_bad_lines_are_told_by_number(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\n\nA=1\nexport B='two words'\nC=x=y\n")
    assert read_file(file) == {"A": "1", "B": "two words", "C": "x=y"}
    file.write_text("A=1\nhunter2\n")
    with pytest.raises(BadSetting, match="line 2") as problem:
        read_file(file)
    assert "hunter2" not in str(problem.value)


def test_task_environment_keeps_the_users_values_and_none_of_the_daemons() -> None:
    env = for_tasks(
        {"EDGE_WORKER_TOKEN_FILE": "t", "PATH": "/bin"},
        {"AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "1"},
    )
    assert "EDGE_WORKER_TOKEN_FILE" not in env
    assert env["AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS"] == "1"
    assert {EXECUTION_API_URL, EXECUTORS} <= for_job({}, Path("/l"), "http://e", "Local").keys()
    users = {EXECUTION_API_URL: "x", EXECUTORS: "y"}
    assert not users.keys() & for_job(users, Path("/l"), "http://e", "Local").keys()
    assert EXECUTORS not in for_job({}, Path("/l"), "http://e", None)


def test_transport_is_auto_unless_one_is_chosen(needed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(needed, None).transport == "auto"
    monkeypatch.setenv("EDGE_WORKER_TRANSPORT", "polling")
    assert load(needed, None).transport == "polling"
    with pytest.raises(BadSetting, match="--transport"):
        load({**needed, "transport": "pigeon"}, None)
