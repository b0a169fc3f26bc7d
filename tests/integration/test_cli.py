"""``airflow edge`` as administrators type it."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from datetime import datetime
from types import SimpleNamespace

import pytest
from airflow_commands import airflow, well
from sqlalchemy.exc import OperationalError

from edge_otel.models.session import new_session


def test_a_token_is_created_by_the_command_itself(airflow_site):
    ran = airflow(airflow_site, "edge", "token", "create", "-w", "w", "-o", "json")
    assert ran.returncode == 0, ran.stderr
    (made,) = json.loads(ran.stdout)
    assert made["token"].startswith(f"ewt_{made['id']}.")


def test_an_error_of_the_command_itself_is_one_line_and_an_exit_code(airflow_site):
    ran = airflow(airflow_site, "edge", "token", "revoke", "nothing")
    assert (ran.returncode, ran.stdout.strip()) == (1, "")
    assert ran.stderr.strip().splitlines()[-1].startswith("Error: No token has the id 'nothing'.")
    assert "Traceback" not in ran.stderr


def test_a_token_is_created_listed_rotated_and_revoked(here, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    (made,) = well(here("token", "create", "-w", "site7-*", "-q", "a, b,a", "-t", "red", "-o", "json"))
    assert made["token"].startswith(f"ewt_{made['id']}.")
    assert (made["worker"], made["queues"], made["team"], made["state"]) == ("site7-*", "a,b", "red", "valid")
    lifetime = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert lifetime.days == 365

    (rotated,) = well(here("token", "rotate", made["id"], "--overlap-hours", "0", "-o", "json"))
    assert (rotated["worker"], rotated["queues"], rotated["team"]) == ("site7-*", "a,b", "red")
    assert rotated["token"] != made["token"]
    (revoked,) = well(here("token", "revoke", rotated["id"], "--output", "json"))
    assert revoked["state"] == "revoked"

    listed = {row["id"]: row for row in well(here("token", "list", "-o", "json"))}
    assert (listed[made["id"]]["state"], listed[rotated["id"]]["state"]) == ("expired", "revoked")
    secrets = [made["token"].partition(".")[2], rotated["token"].partition(".")[2]]
    assert not any(secret in json.dumps(list(listed.values())) for secret in secrets)


def test_a_token_is_printed_whole_beside_a_narrow_table(here, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    printed = well(here("token", "create", "--worker", "w", "--expires-days", "0.5"))
    token = printed.splitlines()[-1]
    assert token.startswith("ewt_")
    assert len(token) == len("ewt_") + 16 + 1 + 43
    assert "shown only now" in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("token", "create", "-w", "two words"), "--worker 'two words'"),
        (("token", "create", "-w", "w\n"), "--worker"),
        (("token", "create", "-w", "w" * 65), "--worker"),
        (("token", "create", "-w", "w", "-q", "a,,b"), "--queues 'a,,b'"),
        (("token", "create", "-w", "w", "--expires-days", "nan"), "--expires-days nan"),
        (("token", "create", "-w", "w", "--expires-days", "0"), "--expires-days 0"),
        (("token", "create", "-w", "w", "--expires-days", "1e9"), "--expires-days 1e+09"),
        (("token", "create", "-w", "w", "-t", "t" * 51), "--team"),
        (("token", "create", "-w", "w", "-t", ""), "--team"),
        (
            ("token", "create", "-w", "w", "-t", "red"),
            "--team 'red': Airflow has no teams here ([core] multi_team is off)",
        ),
        (("token", "create", "-w", "w", "-t", "a\x1bb"), "--team 'a\\x1bb'"),
        (("token", "create", "-w", "w", "-q", "a,b\u202e"), "--queues 'a,b\\u202e'"),
        (("token", "create", "-w", "w", "-q", "\udcff"), "queues '\\udcff': this is not UTF-8"),
        (("token", "revoke", "\udcff"), "token_id '\\udcff': this is not UTF-8"),
        (("workers", "show", "\udcff"), "worker '\\udcff': this is not UTF-8"),
        (("token", "rotate", "nothing"), "No token has the id 'nothing'"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(here, arguments, said):
    before = well(here("token", "list", "-o", "json"))
    ran = here(*arguments)
    assert isinstance(ran.code, str), "Python prints it to standard error and exits with 1"
    assert ran.code.startswith("Error: ")
    assert said in ran.code
    assert "\n" not in ran.code
    assert ran.out == ""
    assert well(here("token", "list", "-o", "json")) == before


@pytest.mark.parametrize("command", [("create", "-w", "w"), ("rotate",), ("revoke",)])
@pytest.mark.parametrize("output", ["table", "json"])
def test_a_token_that_could_not_be_stored_is_not_shown(here, monkeypatch, command, output):
    (made,) = well(here("token", "create", "-w", "w", "-o", "json"))

    @contextmanager
    def full():
        with new_session() as session:
            yield session
            raise OperationalError("insert", None, Exception("the disk is full"))

    monkeypatch.setattr("edge_otel.cli.token.new_session", full)
    ran = here("token", *command, *([] if "create" in command else [made["id"]]), "-o", output)
    assert ran.code == "Error: The database cannot be reached, or is too busy. Try again."
    assert ran.out == ""


def test_what_looks_like_a_number_is_printed_as_it_is(here, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda _: "12e4567890123450")
    lines = well(here("token", "create", "-w", "1.10", "-o", "plain")).splitlines()
    assert lines[1].split()[0] == "12e4567890123450"
    assert lines[1].split()[2] == "1.10"


@pytest.mark.parametrize("arguments", [("token", "create"), ("workers", "maintenance", "maybe", "w"), ("nothing",)])
def test_a_command_that_is_none_ends_with_code_2(here, arguments):
    assert here(*arguments).code == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "[edge] api_url is not set"),
        ({"API_URL": "http://127.0.0.1:1/edge_worker"}, "[edge] token_file is not set"),
        ({"HEARTBEAT_INTERVAL": "soon"}, "[edge] heartbeat_interval = 'soon': must be a number"),
    ],
)
def test_a_worker_that_is_not_configured_says_what_is_missing(here, monkeypatch, options, said):
    for name, value in options.items():
        monkeypatch.setenv(f"AIRFLOW__EDGE__{name}", value)
    assert said in here("worker").code


def test_the_flags_of_airflow_edge_worker_become_those_of_the_daemon(monkeypatch):
    from edge_otel.cli.worker import _flags
    from edge_otel.settings import Settings

    given = SimpleNamespace(
        concurrency=3, queues="a,b", edge_hostname="w", team_name=None, options=["--x", "1"], verbose=True
    )
    health = {"extended_system_info_function": "site.facts", "automatic_maintenance_on": "Error"}
    central = {"api_url": "https://central/edge_worker/v1/rpcapi", "token_file": "/t"}
    settings = Settings(**central, **health, drain_timeout_sec=0)
    flags = _flags(given, settings)
    assert flags[flags.index("--server") + 1] == "https://central/edge_worker"
    assert flags[flags.index("--concurrency") + 1] == "3"
    assert flags[flags.index("--queues") + 1] == "a,b"
    assert flags[flags.index("--task-python") + 1] == sys.executable
    assert "--team" not in flags
    assert flags[flags.index("--facts-function") + 1] == "site.facts"
    assert flags[flags.index("--automatic-maintenance-on") + 1] == "Error"
    assert "--automatic-maintenance-exit" not in flags
    assert flags[flags.index("--log-level") + 1] == "debug"
    assert flags[-2:] == ["--x", "1"]
    given.concurrency = 0
    flags = _flags(given, settings)
    assert flags[flags.index("--concurrency") + 1] == "0", "the daemon refuses it"
    given.concurrency = None
    flags = _flags(given, settings)
    assert flags[flags.index("--concurrency") + 1] == "8"


def test_a_database_that_is_away_is_one_line(airflow_site):
    away = {**airflow_site, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql+psycopg2://nobody@127.0.0.1:1/nothing"}
    ran = airflow(away, "edge", "token", "list")
    assert (ran.returncode, ran.stdout.strip()) == (1, "")
    assert ran.stderr == "Error: The database cannot be reached, or is too busy. Try again.\n"


@pytest.mark.parametrize("group", [(), ("token",), ("workers",), ("workers", "queues"), ("worker",)])
def test_every_group_has_its_help(here, group):
    ran = here(*group, "--help")
    assert ran.code == 0
    assert "Usage: airflow edge" in ran.out
