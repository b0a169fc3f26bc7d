"""``airflow edge`` as administrators type it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from airflow_database import use
from rows import register

from demo.environment import Secrets, bare, central
from edge_otel.models.tables import Worker


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A migrated SQLite database, and the environment of the commands."""
    folder = tmp_path_factory.mktemp("cli")
    env = central(
        bare("cli"),
        home=folder,
        dags=folder,
        database=f"sqlite:///{folder}/airflow.db",
        port=1,
        executor="edge_otel.executor.EdgeExecutor",
        keys=Secrets(),
    )
    env["COLUMNS"] = "250"
    ran = airflow(env, "db", "migrate")
    assert ran.returncode == 0, ran.stderr
    return env


@pytest.fixture
def here(site, monkeypatch, capsys):
    """Runs ``airflow edge`` in this process, by Airflow's own parser: a new one takes seconds."""
    from airflow.cli.cli_parser import get_parser

    monkeypatch.setenv("COLUMNS", "250")
    use(site["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])

    def run(*arguments):
        code = 0
        try:
            given = get_parser().parse_args(["edge", *arguments])
            given.func(given)
        except SystemExit as ended:
            code = ended.code
        printed = capsys.readouterr()
        return SimpleNamespace(code=code, out=printed.out, err=printed.err)

    return run


def airflow(env, *arguments):
    """Run ``airflow`` in a process of its own."""
    command = [sys.executable, "-m", "airflow", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def well(ran):
    """Return what a command printed: as JSON where it is that."""
    assert ran.code == 0, ran.code
    return json.loads(ran.out) if ran.out.startswith("[") else ran.out.strip()


def test_a_token_is_created_by_the_command_itself(site):
    ran = airflow(site, "edge", "token", "create", "-w", "w", "-o", "json")
    assert ran.returncode == 0, ran.stderr
    (made,) = json.loads(ran.stdout)
    assert made["token"].startswith(f"ewt_{made['id']}.")


def test_an_error_of_the_command_itself_is_one_line_and_an_exit_code(site):
    ran = airflow(site, "edge", "token", "revoke", "nothing")
    assert (ran.returncode, ran.stdout.strip()) == (1, "")
    assert ran.stderr.strip().splitlines()[-1].startswith("Error: No token has the id 'nothing'.")
    assert "Traceback" not in ran.stderr


def test_a_token_is_created_listed_rotated_and_revoked(here):
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
        (("token", "rotate", "nothing"), "No token has the id 'nothing'"),
        (("workers", "shutdown", "nobody"), "No worker 'nobody' is registered"),
        (("workers", "maintenance", "on", "nobody", "-c", "c" * 1025), "--comment: at most 1024 characters"),
        (("workers", "queues", "add", "nobody"), "--queues is missing"),
        (("workers", "concurrency", "nobody", "0"), "0: the number of slots is from 1"),
        (("workers", "concurrency", "nobody", "3"), "No worker 'nobody' is registered"),
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


@pytest.mark.parametrize("arguments", [("token", "create"), ("workers", "maintenance", "maybe", "w"), ("nothing",)])
def test_a_command_that_is_none_ends_with_code_2(here, arguments):
    assert here(*arguments).code == 2


def test_workers_are_listed_and_asked(here):
    from edge_otel.models.session import new_session

    with new_session() as session:
        register(session, "w", datetime.now(UTC), state="idle", queues=["a"])
    assert well(here("workers", "maintenance", "on", "w", "-c", "disk swap")) == "w: maintenance request"
    assert well(here("workers", "queues", "add", "w", "-q", "b")) == "w: a,b"
    assert well(here("workers", "queues", "remove", "w", "-q", "a,b")) == "w: no queue"
    assert well(here("workers", "concurrency", "w", "7")) == "w: 7 slots"
    (row,) = well(here("workers", "list", "-o", "json"))
    assert (row["worker"], row["state"], row["slots"]) == ("w", "maintenance request", "7")
    assert (row["maintenance"], row["when cut off"]) == ("admin: disk swap", "keeps jobs")
    assert "disk swap" in well(here("workers", "list"))
    assert well(here("workers", "maintenance", "off", "w")) == "w: maintenance exit"
    assert well(here("workers", "shutdown", "w")) == "w: shutdown request"
    assert "Shut it down first" in here("workers", "remove", "w").code
    with new_session() as session:
        session.get(Worker, "w").state = "offline"
    assert well(here("workers", "remove", "w")) == "w: removed"
    assert well(here("workers", "list", "-o", "json")) == []


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

    given = SimpleNamespace(concurrency=3, queues="a,b", edge_hostname="w", team_name=None, options=["--x", "1"])
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
    assert flags[-2:] == ["--x", "1"]


def test_a_database_that_is_away_is_one_line(site):
    away = {**site, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql+psycopg2://nobody@127.0.0.1:1/nothing"}
    ran = airflow(away, "edge", "token", "list")
    assert (ran.returncode, ran.stdout.strip()) == (1, "")
    assert ran.stderr.strip().splitlines()[-1] == "Error: The database cannot be reached, or is too busy. Try again."


@pytest.mark.parametrize("group", [(), ("token",), ("workers",), ("workers", "queues"), ("worker",)])
def test_every_group_has_its_help(here, group):
    ran = here(*group, "--help")
    assert ran.code == 0
    assert "Usage: airflow edge" in ran.out
