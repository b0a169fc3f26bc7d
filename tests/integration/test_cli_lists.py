"""``airflow edge workers list`` and ``show``, ``jobs list`` and ``queues``: for people, and whole for scripts."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from airflow_commands import airflow, well
from rows import beat, claim, queue_job, register, register_as, report

from edge_otel.models import workers
from edge_otel.state import WorkerState
from edge_otel.views import JobRow, QueueRow, WorkerDetail, WorkerRow

FACTS = {"airflow_version": "3.3.2", "edge_provider_version": "0.1.0", "concurrency": 4, "status": 30}


@pytest.fixture
def now():
    """A second ago: nothing that a command prints is of the future."""
    return datetime.now(UTC) - timedelta(seconds=1)


def head(ran):
    """Return the names of a table's columns, and its rows by the first of them."""
    lines = [[cell.strip() for cell in line.split("|")] for line in ran.out.splitlines() if "|" in line]
    return lines[0], {cells[0]: dict(zip(lines[0], cells, strict=True)) for cells in lines[1:]}


def test_the_list_shows_people_what_they_look_for(fleet, here, now):
    with fleet() as session:
        worker = register(session, "w", now - timedelta(hours=3), queues=["a", "b"], sysinfo=FACTS, team="red")
        queue_job(session, now, queue="a", slots=3, team="red")
        assert claim(session, worker, now, queues=["a"]) is not None
        workers.heartbeat(session, "w", report("running", sysinfo=FACTS), now, token_id="t1", trace_id=None)
    well(here("workers", "maintenance", "on", "w", "-c", "disk [red]swap[/red]"))
    names, rows = head(here("workers", "list"))
    assert names == [
        *("worker", "state", "since", "heartbeat", "team", "queues", "slots", "jobs", "health", "versions"),
        *("when cut off", "maintenance"),
    ]
    row = rows["w"]
    assert (row["state"], row["queues"], row["slots"], row["jobs"]) == ("maintenance request", "a,b", "3/4", "1")
    assert re.fullmatch(r"\d+ s ago \(admin:.+\)", row["since"])
    assert re.fullmatch(r"\d+ s ago", row["heartbeat"])
    assert (row["health"], row["versions"], row["team"]) == ("Warning", "0.1.0, Airflow 3.3.2", "red")
    assert (row["when cut off"], row["maintenance"]) == ("keeps jobs", "admin: disk [red]swap[/red]")


def test_the_list_gives_scripts_whole_rows_with_their_types(fleet, here, now):
    with fleet() as session:
        register(session, "w", now, queues=["a", "b"], sysinfo=FACTS | {"jobs_stopped_after": 1800})
        register(session, "x", now)
    told = well(here("workers", "list", "-o", "json"))
    assert [row["name"] for row in told] == ["w", "x"]
    assert told[0].keys() == WorkerRow.model_fields.keys()
    first = told[0]
    assert (first["queues"], first["slots"], first["late"], first["team"]) == (["a", "b"], 4, False, None)
    assert (first["jobs_stopped_after"], told[1]["jobs_stopped_after"]) == (1800.0, None)
    assert told[1]["queues"] is None
    assert abs(datetime.fromisoformat(first["last_heartbeat"]) - now) < timedelta(milliseconds=1)
    ran = yaml.safe_load(here("workers", "list", "-o", "yaml").out)
    assert [(row["name"], row["queues"]) for row in ran] == [("w", ["a", "b"]), ("x", None)]
    plain = here("workers", "list", "-o", "plain").out.splitlines()
    assert [line.split()[0] for line in plain] == ["worker", "w", "x"]
    assert "jobs stopped in 1800 s" in plain[1]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ([], ["site7-a", "site7-b", "site9"]),
        (["site7-*"], ["site7-a", "site7-b"]),
        (["site9", "site7-a"], ["site7-a", "site9"]),
        (["--queue", "b"], ["site7-b", "site9"]),
        (["--state", "unknown,running"], ["site7-b"]),
        (["--state", "maintenance_mode", "--state", "idle"], ["site7-a", "site9"]),
        (["--team", "red", "site*"], ["site7-a"]),
    ],
)
def test_the_list_is_filtered(fleet, here, given, meant):
    with fleet() as session:
        register_as(session, "idle", "site7-a", queues=["a"], team="red")
        register_as(session, "running", "site7-b", queues=["b"])
        register_as(session, "maintenance mode", "site9", queues=None)
    assert [row["name"] for row in well(here("workers", "list", *given, "-o", "json"))] == meant


def test_a_name_that_no_worker_has_is_told(fleet, here):
    with fleet() as session:
        register_as(session, "idle", "w")
    ran = here("workers", "list", "w", "nobody", "-o", "plain")
    assert "w " in ran.out
    assert ran.code == "Error: None of those workers has this name: nobody"
    assert here("workers", "list", "--state", "asleep").code.startswith("Error: --state 'asleep': there is starting,")


def test_an_empty_list_is_no_error(fleet, here):
    assert well(here("workers", "list", "-o", "json")) == []
    assert well(here("jobs", "list", "-o", "json")) == []
    assert well(here("queues", "-o", "json")) == []
    assert "No data found" in well(here("workers", "list"))


def test_one_worker_is_shown_with_its_facts_history_jobs_and_log(fleet, here, now):
    log = {
        "source": "s1",
        "lines": [{"number": 1, "time": now.isoformat(), "level": 30, "logger": "daemon", "text": "disk is [slow]"}],
    }
    with fleet() as session:
        worker = register(session, "w", now, sysinfo=FACTS | {"rack": "B7"}, log=log)
        queue_job(session, now, task_id="press", map_index=2)
        assert claim(session, worker, now) is not None
        beat(session, now, WorkerState.RUNNING, sysinfo=FACTS | {"rack": "B7"})
    printed = here("workers", "show", "w").out
    for line in ("worker ", "fact: rack ", "token "):
        assert line in printed
    assert "press[2]" in printed
    assert printed.index("HISTORY") < printed.index("registered") < printed.index("JOBS") < printed.index("LOG")
    assert printed.rstrip().endswith("disk is [slow]")
    told = well(here("workers", "show", "w", "--output", "json"))
    assert told.keys() == WorkerDetail.model_fields.keys()
    assert told["facts"]["rack"] == "B7"
    assert [line["text"] for line in told["log"]] == ["disk is [slow]"]
    assert [(job["task_id"], job["map_index"], job["state"]) for job in told["jobs"]] == [("press", 2, "assigned")]
    assert told["events"][-1]["cause"] == "registered"
    assert well(here("workers", "show", "w", "--actions", "--output", "json"))["events"] == []
    assert here("workers", "show", "nobody").code.startswith("Error: No worker 'nobody' is registered")


def test_what_a_site_writes_cannot_steer_the_terminal(fleet, here, now):
    with fleet() as session:
        register(session, "w", now, sysinfo=FACTS | {"os": "\x1b[31mred\x1b[0m\nw2"}, queues=["a\x1b]0;x\x07"])
    for output in ("table", "plain"):
        for command in (("workers", "list"), ("workers", "show", "w"), ("queues",)):
            assert not set(here(*command, "-o", output).out) & {"\x1b", "\x07"}
    assert well(here("workers", "show", "w", "-o", "json"))["facts"]["os"] == "\x1b[31mred\x1b[0m\nw2"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ([], {"t1", "t2", "t3"}),
        (["--state", "queued"], {"t1", "t3"}),
        (["--state", "queued,assigned"], {"t1", "t2", "t3"}),
        (["--state", "assigned", "--state", "lost"], {"t2"}),
        (["--dag", "PRESS"], {"t1"}),
        (["--task", "t2"], {"t2"}),
        (["--run", "run"], {"t1", "t2", "t3"}),
        (["--queue", "gpu"], {"t3"}),
        (["--worker", "site-1"], {"t2"}),
        (["--team", "red"], {"t3"}),
    ],
)
def test_jobs_are_listed_and_filtered(fleet, here, now, given, meant):
    with fleet() as session:
        worker = register(session, "site-1", now)
        queue_job(session, now, task_id="t2")
        assert claim(session, worker, now) is not None
        queue_job(session, now, task_id="t1", dag_id="a_press")
        queue_job(session, now, task_id="t3", queue="gpu", team="red")
    told = well(here("jobs", "list", *given, "-o", "json"))
    assert {job["task_id"] for job in told} == meant
    assert all(job.keys() == JobRow.model_fields.keys() and isinstance(job["slots"], int) for job in told)
    assert {cells["task"] for cells in head(here("jobs", "list", *given))[1].values()} <= meant


@pytest.mark.parametrize("part", [("--queue", "gp"), ("--worker", "site"), ("--worker", "site-1%"), ("--team", "re")])
def test_part_of_the_name_of_a_worker_a_queue_or_a_team_is_another(fleet, here, now, part):
    with fleet() as session:
        worker = register(session, "site-10", now, team="red")
        queue_job(session, now, queue="gpu", team="red")
        assert claim(session, worker, now, queues=["gpu"]) is not None
    assert well(here("jobs", "list", *part, "-o", "json")) == []


def test_a_list_of_jobs_says_that_there_are_more(fleet, here, now):
    with fleet() as session:
        for number in range(5):
            queue_job(session, now + timedelta(milliseconds=number), task_id=f"t{number}")
    ran = here("jobs", "list", "--limit", "2", "-o", "json")
    assert [job["task_id"] for job in well(ran)] == ["t4", "t3"]
    assert ran.err == "2 of 5 jobs; --limit shows more.\n"
    assert here("jobs", "list").err == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--state", "asleep"), "--state 'asleep': there is queued, assigned, running, success, failed, lost"),
        (("--limit", "0"), "--limit 0: from 1 to 100000"),
        (("--dag", "d" * 251), "dag_id 'ddd"),
    ],
)
def test_a_filter_that_is_none_is_one_line(fleet, here, arguments, said):
    ran = here("jobs", "list", *arguments)
    assert ran.code.startswith(f"Error: {said}")
    assert "\n" not in ran.code


@pytest.mark.parametrize("command", [("queues",), ("queues", "list")])
def test_queues_are_listed_with_what_waits_and_who_serves_them(fleet, here, now, command):
    with fleet() as session:
        worker = register(session, "w", now, state="idle", queues=["a"])
        for _ in range(3):
            queue_job(session, now - timedelta(minutes=5), queue="a", slots=2)
        assert claim(session, worker, now, queues=["a"]) is not None
    (row,) = well(here(*command, "-o", "json"))
    assert row.keys() == QueueRow.model_fields.keys()
    assert (row["queue"], row["queued"], row["assigned"], row["workers"], row["slots"]) == ("a", 2, 1, 1, 4)
    assert 299 < row["oldest_age"] < 400
    names, rows = head(here(*command))
    assert names == ["queue", "team", "queued", "oldest", "assigned", "running", "workers", "slots"]
    assert (rows["a"]["oldest"], rows["a"]["slots"]) == ("5 min", "2/4")


def test_the_command_itself_prints_json_and_nothing_else_to_its_output(airflow_site, fleet, here, now):
    with fleet() as session:
        register(session, "w", now)
    ran = airflow(airflow_site, "edge", "workers", "list", "--output", "json")
    assert [row["name"] for row in json.loads(ran.stdout)] == ["w"]


@pytest.mark.parametrize("output", ["table", "plain"])
def test_a_letter_that_the_terminal_does_not_know_is_no_error(airflow_site, fleet, here, now, output):
    with fleet() as session:
        register(session, "w", now, queues=["n\xe4chtlich"])
    ran = airflow(airflow_site | {"PYTHONIOENCODING": "ascii"}, "edge", "workers", "list", "-o", output)
    assert (ran.returncode, r"n\xe4chtlich" in ran.stdout) == (0, True), ran.stderr
