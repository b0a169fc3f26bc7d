"""``airflow edge workers`` that change something: which workers are meant, what is asked first, and what is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
import yaml
from airflow.models.log import Log
from airflow_commands import well
from rows import NOW, queue_job, register_as

from demo.wait import wait_for
from edge_otel.actions import Outcome
from edge_otel.models import workers
from edge_otel.models.tables import Job, Worker


@pytest.fixture
def sites(fleet):
    """Three connected workers, and one that is gone."""
    with fleet() as session:
        register_as(session, "idle", "site7-a", queues=["a"], team="red")
        register_as(session, "running", "site7-b", queues=["b"])
        register_as(session, "idle", "site9", queues=["a", "b"])
        register_as(session, "offline", "old", queues=None)
    return fleet


def states(fleet):
    """Return the state of each worker."""
    with fleet() as session:
        return {worker.name: worker.state for worker in workers.every(session)}


def audited(fleet):
    """Return what the audit log has of the fleet, the last first."""
    with fleet() as session:
        query = (
            sa.select(Log.event, Log.owner, Log.extra).where(Log.event.like("edge_worker_%")).order_by(Log.id.desc())
        )
        return session.execute(query).all()


@contextmanager
def terminal(monkeypatch, answer):
    """Let the commands have a terminal on which somebody answers."""
    ours, theirs = os.openpty()
    os.write(ours, answer)
    with os.fdopen(theirs) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield
    os.close(ours)


def test_one_worker_is_asked_without_a_question(sites, here):
    assert well(here("workers", "maintenance", "on", "site9", "-c", "disk swap")) == "site9: maintenance request"
    assert well(here("workers", "maintenance", "comment", "site9", "-c", "on Friday")) == "site9: comment: on Friday"
    assert well(here("workers", "queues", "add", "site9", "-q", "c,d")) == "site9: queues: a, b, c, d"
    assert well(here("workers", "queues", "remove", "site9", "--queues", "a,b,c,d")) == "site9: queues: none"
    assert well(here("workers", "concurrency", "site9", "7")) == "site9: 7 slots"
    with sites() as session:
        worker = session.get(Worker, "site9")
        assert (worker.state, worker.maintenance_comment, worker.maintenance_origin) == (
            "maintenance request",
            "on Friday",
            "admin",
        )
        assert (worker.queues, worker.slots_wanted) == ([], 7)
    assert well(here("workers", "maintenance", "off", "site9")) == "site9: maintenance exit"
    assert well(here("workers", "shutdown", "site9")) == "site9: shutdown request"
    assert well(here("workers", "remove", "old")) == "old: removed"
    assert states(sites) == {"site7-a": "idle", "site7-b": "running", "site9": "shutdown request"}


def test_a_worker_whose_jobs_are_not_settled_yet_is_not_removed(sites, here):
    with sites() as session:
        old = session.get(Worker, "old")
        old.sysinfo = {**old.sysinfo, "jobs_stopped_after": 600}
        job = session.get(Job, queue_job(session, NOW))
        job.state, job.worker = "running", "old"
    for options in (["--dry-run"], []):
        ran = here("workers", "remove", "old", *options)
        assert ran.code == (
            "Error: old: Worker 'old' has running jobs that are not settled yet (1)."
            " The scheduler does that as soon as it runs: remove it then."
        )
    assert "old" in states(sites)


def test_who_did_what_is_in_airflows_audit_log_and_in_the_workers_events(sites, here):
    import getpass

    well(here("workers", "concurrency", "site7-a", "site9", "3", "--yes"))
    event, owner, extra = audited(sites)[0]
    assert (event, owner) == ("edge_worker_set_concurrency", getpass.getuser())
    assert json.loads(extra) == {"kind": "set_concurrency", "slots": 3, "workers": ["site7-a", "site9"]}
    with sites() as session:
        assert workers.events_of(session, "site9")[0].cause == f"admin:{getpass.getuser()}"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["site7-*"], {"site7-a", "site7-b"}),
        (["site7-a", "site9"], {"site7-a", "site9"}),
        (["*", "--queue", "b", "--state", "idle,running"], {"site7-b", "site9"}),
        (["--queue", "b", "--queue", "a", "--state", "idle"], {"site7-a", "site9"}),
        (["--state", "idle"], {"site7-a", "site9"}),
        (["--team", "red"], {"site7-a"}),
        (["site*", "--state", "running"], {"site7-b"}),
    ],
)
def test_workers_are_meant_by_names_globs_queues_states_and_team(sites, here, given, meant):
    before = states(sites)
    ran = here("workers", "shutdown", *given, "--yes")
    assert ran.code == 0, ran.code
    assert states(sites) == before | dict.fromkeys(meant, "shutdown request")
    assert [line.partition(":")[0] for line in ran.out.splitlines()] == sorted(meant)


@pytest.mark.parametrize("command", [["shutdown"], ["remove"], ["maintenance", "off"], ["concurrency", "4"]])
def test_nobody_is_meant_by_nothing(sites, here, command):
    ran = here("workers", *command, "--yes")
    assert ran.code == ("Error: Which workers? Give names or globs ('*' for all of them), --queue, --state or --team.")
    assert "shutdown request" not in states(sites).values()


def test_several_are_not_touched_without_a_yes_where_nobody_can_be_asked(sites, here):
    before = states(sites)
    ran = here("workers", "shutdown", "site*")
    assert ran.code == (
        "Error: shutdown: 3 workers meant (site7-a, site7-b, site9). Give --yes to do it, or --dry-run to look first."
    )
    assert states(sites) == before


@pytest.mark.parametrize("answer", [b"\n", b"no\n", b"\x04"])
def test_whoever_does_not_say_yes_has_changed_nothing(sites, here, monkeypatch, answer):
    before = states(sites)
    with terminal(monkeypatch, answer):
        ran = here("workers", "shutdown", "site*")
    assert ran.err == "shutdown: 3 workers (site7-a, site7-b, site9). Go on? [y/N] "
    assert ran.code == "Error: Nothing was done."
    assert states(sites) == before


def test_whoever_says_yes_on_a_terminal_has_it_done(sites, here, monkeypatch):
    with terminal(monkeypatch, b"y\n"):
        assert here("workers", "shutdown", "site7-*").code == 0
    assert states(sites)["site7-a"] == states(sites)["site7-b"] == "shutdown request"


def test_a_question_about_many_names_ten(fleet, here):
    with fleet() as session:
        for number in range(13):
            register_as(session, "idle", f"w{number:02}")
    said = here("workers", "shutdown", "*").code
    assert "13 workers meant (w00, w01," in said
    assert "w09 and 3 more)" in said
    assert "w10" not in said


def test_a_dry_run_says_what_would_become_of_each_and_changes_nothing(sites, here):
    before, entries = states(sites), len(audited(sites))
    ran = here("workers", "shutdown", "*", "--dry-run")
    assert ran.out.splitlines() == [f"{name}: shutdown request" for name in ("site7-a", "site7-b", "site9")]
    assert ran.err.splitlines()[0] == "Dry run: nothing is changed."
    assert "old: Worker 'old' is in state 'offline'" in ran.err
    assert ran.code == "Error: 1 of 4 workers refused."
    assert states(sites) == before
    assert len(audited(sites)) == entries
    with sites() as session:
        assert all(event.cause == "registered" for event in workers.events_of(session, "site9"))


def test_what_one_refuses_is_done_at_the_others_and_told(sites, here):
    ran = here("workers", "remove", "site9", "old", "--yes")
    assert ran.out == "old: removed\n"
    assert "site9: Worker 'site9' is in state 'idle'. Shut it down first." in ran.err
    assert ran.code == "Error: 1 of 2 workers refused."
    assert "old" not in states(sites)


def test_what_became_of_each_is_there_for_scripts(sites, here):
    ran = here("workers", "remove", "site9", "old", "nobody", "--yes", "-o", "json")
    told = {one["worker"]: (one["done"], one["text"]) for one in json.loads(ran.out)}
    assert told == {
        "nobody": (False, "No worker of this name is registered."),
        "old": (True, "removed"),
        "site9": (False, "Worker 'site9' is in state 'idle'. Shut it down first."),
    }
    assert ran.code == "Error: 2 of 3 workers refused."
    ran = here("workers", "concurrency", "site9", "5", "--output", "yaml")
    assert yaml.safe_load(ran.out) == [{"worker": "site9", "done": True, "text": "5 slots"}]
    table = here("workers", "concurrency", "site9", "5", "--output", "table").out
    assert [word.strip() for word in table.splitlines()[0].split("|")] == ["worker", "done", "how it stands"]
    assert [word.strip() for word in table.splitlines()[2].split("|")] == ["site9", "yes", "5 slots"]


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_a_script_gets_an_empty_list_where_no_worker_matches(sites, here, output):
    ran = here("workers", "remove", "zzz*", "--output", output)
    assert yaml.safe_load(ran.out) == []
    assert ran.code == "Error: No worker matches, so nothing was done."


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("shutdown", "nobody"), "nobody: No worker of this name is registered."),
        (("shutdown", "nobody-*"), "No worker matches, so nothing was done."),
        (("shutdown", "--team", "blue"), "No worker matches, so nothing was done."),
        (
            ("shutdown", "site9", "--state", "running"),
            "site9: It is not what else was selected: another state",
        ),
        (("shutdown", "--state", "asleep"), "--state 'asleep': there is starting, idle, running"),
        (("shutdown", "x" * 65), "names"),
        (("shutdown", "old"), "old: Worker 'old' is in state 'offline': nobody is there to be told."),
        (("remove", "site9"), "site9: Worker 'site9' is in state 'idle'. Shut it down first."),
        (("maintenance", "on", "site9", "-c", "c" * 1025), "--comment: at most 1024 characters"),
        (("maintenance", "on", "site9", "-c", "\udcff"), "comment '\\udcff': "),
        (("shutdown", "site9", "--timeout", "5"), "--timeout 5: only together with --wait"),
        (("maintenance", "comment", "site9", "-c", "later"), "Worker 'site9' is in state 'idle', not in maintenance."),
        (("maintenance", "comment", "site9", "-c", " "), "comment ' ': say why: the comment is empty"),
        (("queues", "add", "site9", "-q", "a,,b"), "--queues 'a,,b'"),
        (("concurrency", "site9", "0"), "0: the number of slots is from 1 to 100000"),
        (("concurrency", "site9", "100001"), "100001: the number of slots is from 1 to 100000"),
        (("concurrency", "nobody", "3"), "nobody: No worker of this name is registered."),
        (("shutdown", "site9", "--wait", "--timeout", "-1"), "--timeout -1: at least 0 seconds"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(sites, here, arguments, said):
    before = states(sites)
    ran = here("workers", *arguments)
    assert isinstance(ran.code, str), "Python prints it to standard error and exits with 1"
    assert ran.code.startswith("Error: ")
    assert said in ran.code
    assert "\n" not in ran.code
    assert ran.out == ""
    assert states(sites) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("maintenance", "maybe", "w"),
        ("maintenance", "comment", "w"),
        ("queues", "add", "w"),
        ("concurrency", "w"),
        ("concurrency", "w", "many"),
    ],
)
def test_what_is_no_command_ends_with_code_2(fleet, here, arguments):
    assert here("workers", *arguments).code == 2


@pytest.mark.parametrize(
    "command",
    [
        ("list",),
        ("show",),
        ("maintenance",),
        ("maintenance", "on"),
        ("maintenance", "off"),
        ("maintenance", "comment"),
        ("shutdown",),
        ("queues", "add"),
        ("queues", "remove"),
        ("concurrency",),
        ("remove",),
    ],
)
def test_every_command_has_its_help(here, command):
    ran = here("workers", *command, "--help")
    assert ran.code == 0
    assert f"Usage: airflow edge workers {' '.join(command)}" in ran.out
    if command not in (("show",), ("maintenance",)):
        assert f"airflow edge workers {' '.join(command)} " in ran.out.partition("examples:")[2]


@pytest.mark.parametrize(
    ("command", "on_the_way", "after"),
    [
        (("maintenance", "on"), ["maintenance request", "maintenance pending"], "maintenance mode"),
        (("maintenance", "on"), ["maintenance request", "shutdown request", "terminating"], "offline maintenance"),
        (("maintenance", "off"), ["maintenance exit"], "idle"),
        (("shutdown",), ["shutdown request", "terminating"], "offline"),
    ],
)
def test_a_wait_ends_when_the_worker_has_done_it(sites, here, command, on_the_way, after):
    if command == ("maintenance", "off"):
        well(here("workers", "maintenance", "on", "site9"))
    ran = []
    waiting = threading.Thread(target=lambda: ran.append(here("workers", *command, "site9", "--wait")))
    waiting.start()
    for state in (*on_the_way[1:], None):
        wait_for(lambda: states(sites)["site9"] == on_the_way[0], "the wish to be stored", timeout=30)
        assert waiting.is_alive(), ran
        with sites() as session:
            session.get(Worker, "site9").state = on_the_way[0] = state or after
    waiting.join(30)
    assert ran[0].code == 0, ran[0].code
    assert ran[0].out.splitlines()[-1] == f"site9: {after}"


@pytest.mark.parametrize(
    ("command", "became"),
    [
        (("maintenance", "on"), "idle"),
        (("maintenance", "off"), "unknown"),
        (("shutdown",), "unknown"),
    ],
)
def test_a_wait_for_a_worker_that_does_otherwise_is_an_error(sites, here, command, became):
    if command == ("maintenance", "off"):
        well(here("workers", "maintenance", "on", "site9"))
    before = states(sites)["site9"]
    ran = []
    waiting = threading.Thread(target=lambda: ran.append(here("workers", *command, "site9", "--wait")))
    waiting.start()
    wait_for(lambda: states(sites)["site9"] != before, "the wish to be stored", timeout=30)
    with sites() as session:
        session.get(Worker, "site9").state = became
    waiting.join(30)
    assert ran[0].code == f"Error: 1 of 1 workers have not done it: site9 is in state {became}"


def test_who_refuses_is_told_before_the_others_are_waited_for(sites, here):
    well(here("workers", "maintenance", "on", "site9"))
    ran = here("workers", "maintenance", "off", "site9", "site7-a", "--yes", "--wait", "--timeout", "0")
    assert "site7-a: Worker 'site7-a' is in state 'idle', not in maintenance." in ran.err
    assert ran.code.startswith("Error: 1 of 1 workers have not done it within 0 s")


def test_who_comes_while_the_question_is_asked_is_not_meant(sites, here, monkeypatch):
    def answer():
        with sites() as session:
            register_as(session, "idle", "site8")
            session.get(Worker, "site9").state = "running"
        return "y\n"

    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True, readline=answer))
    ran = here("workers", "shutdown", "site*", "--state", "idle")
    assert ran.out == "site7-a: shutdown request\n"
    assert "site9: It is not what else was selected: another state" in ran.err
    assert (states(sites)["site8"], states(sites)["site9"]) == ("idle", "running")


def test_several_are_not_touched_where_there_is_no_input_at_all(sites, here, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert here("workers", "shutdown", "site*").code.startswith("Error: shutdown: 3 workers meant")


def test_whoever_interrupts_is_told_what_was_done_until_then(sites, here, monkeypatch):
    def interrupted(*_, **__):
        yield Outcome(worker="site9", done=True, text="shutdown request")
        raise KeyboardInterrupt

    monkeypatch.setattr("edge_otel.cli.change.carry_out", interrupted)
    for output, account in (("json", "[]"), ("yaml", "[]"), ("text", "")):
        ran = here("workers", "shutdown", "site*", "--yes", "-o", output)
        assert ran.code == 130
        assert "site9" in ran.out != account


def test_what_people_have_written_cannot_steer_the_terminal(sites, here):
    odd = "\x1b]0;owned\x07\u202e\n"
    with sites() as session:
        session.get(Worker, "site9").queues = [f"a{odd}"]
        register_as(session, "running", "w9", queues=["b"])
    ran = [
        here("workers", "maintenance", "on", "site9", "-c", odd),
        here("workers", "maintenance", "comment", "site9", "-c", f"{odd}x"),
        here("workers", "queues", "add", "site9", "-q", "b"),
        here("workers", "shutdown", f"no{odd}body"),
        here("workers", "shutdown", f"no{odd}body", "w9", "--yes"),
        here("workers", "shutdown", f"no{odd}body", "w9", "--yes", "-o", "table"),
        here("workers", "list", f"no{odd}body"),
        here("workers", "show", f"no{odd}body"),
        here("token", "revoke", f"no{odd}body"),
    ]
    told = [f"{one.out}{one.err}{one.code}" for one in ran]
    assert "site9: comment:" in told[1]
    assert "site9: queues: a" in told[2]
    assert "No worker of this name is registered." in told[3]
    for text in told:
        assert not set(text) & set("\x1b\x07\u202e"), text
    assert [str(one.code).count("\n") for one in ran] == [0] * len(ran)


def test_a_wait_that_is_too_long_is_an_error(sites, here):
    ran = here("workers", "maintenance", "on", "site7-*", "--yes", "--wait", "--timeout", "0")
    assert ran.code == (
        "Error: 2 of 2 workers have not done it within 0 s: site7-a is in state maintenance request,"
        " site7-b is in state maintenance request"
    )


def test_more_workers_than_a_batch_are_changed_in_one_command(fleet, here):
    with fleet() as session:
        for number in range(120):
            register_as(session, "idle", f"w{number:03}")
    ran = here("workers", "shutdown", "*", "--yes")
    assert ran.code == 0
    assert ran.out.splitlines() == [f"w{number:03}: shutdown request" for number in range(120)]
    assert [len(json.loads(extra)["workers"]) for _, _, extra in audited(fleet)[:3]] == [20, 50, 50]


def run_unread(site, *command):
    """Run a command whose output nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    ran = subprocess.run(
        [sys.executable, "-m", "airflow", "edge", "workers", *command],
        env=site,
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    return ran


@pytest.mark.parametrize(
    "command", [("list",), ("list", "-o", "json"), ("maintenance", "on", "site*", "--yes", "-c", "disk swap")]
)
def test_a_reader_that_has_had_enough_stops_no_command(sites, airflow_site, command):
    ran = run_unread(airflow_site, *command)
    assert (ran.returncode, "BrokenPipe" in ran.stderr) == (0, False), ran.stderr
    asked = {name for name, state in states(sites).items() if state == "maintenance request"}
    assert asked == ({"site7-a", "site7-b", "site9"} if "maintenance" in command else set())


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("remove", "site9", "old", "--yes", "-o", "json"), "Error: 1 of 2 workers refused."),
        (("remove", "site9", "old", "--yes", "-o", "table"), "Error: 1 of 2 workers refused."),
        (("list", "site9", "nobody", "-o", "json"), "Error: None of those workers has this name: nobody"),
    ],
)
def test_what_was_refused_is_an_error_though_nobody_reads_the_rest(sites, airflow_site, command, said):
    ran = run_unread(airflow_site, *command)
    assert (ran.returncode, ran.stderr.splitlines()[-1]) == (1, said)


def test_a_command_whose_errors_go_nowhere_is_done_all_the_same(sites, airflow_site):
    command = [sys.executable, "-m", "airflow", "edge", "workers", "shutdown", "*", "--yes", "-o", "json"]
    closed = ["bash", "-c", 'exec "$@" 2>&-', "bash", *command]
    ran = subprocess.run(closed, env=airflow_site, stdout=subprocess.PIPE, text=True, check=False)
    told = {one["worker"]: one["done"] for one in json.loads(ran.stdout)}
    assert (ran.returncode, told) == (1, {"old": False, "site7-a": True, "site7-b": True, "site9": True})


def test_what_is_told_goes_to_the_output_also_beside_a_progress_bar(sites, airflow_site):
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "airflow", "edge", "workers", "shutdown", "site*", "--yes"]
    env = {**airflow_site, "TERM": "xterm"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=theirs, text=True) as ran:
        os.close(theirs)
        told = ran.stdout.read()
    bar = os.read(ours, 65536).decode()
    os.close(ours)
    assert "Workers" in bar
    assert told.splitlines() == [f"{name}: shutdown request" for name in ("site7-a", "site7-b", "site9")]
