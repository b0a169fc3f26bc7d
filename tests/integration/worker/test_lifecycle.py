"""Registration, heartbeats, obedience, and leaving."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import Start, finished, workload
from fake_server import PAGE, Answer, Call, FakeCentral, refusal

from edge_otel.telemetry import context


def test_first_word_is_a_registration_as_starting_with_session_and_facts(central: FakeCentral, start: Start) -> None:
    start(queues="a,b", concurrency=3, team="blue")
    report = central.reports[0]
    assert central.calls[0].method == "POST"
    assert report["state"] == "starting"
    assert report["queues"] == ["a", "b"]
    assert report["team_name"] == "blue"
    assert report["jobs"] == []
    assert len(report["session"]) == 36
    facts = report["sysinfo"]
    assert facts["status"] == 20
    assert facts["airflow_version"] == "3.3.2"
    assert facts["concurrency"] == 3
    assert {"cpu_percent", "memory_total", "disk_percent", "load1", "worker_start_time", "os"} <= facts.keys()


def test_heartbeats_follow_as_idle_in_the_same_session(central: FakeCentral, start: Start) -> None:
    start()
    central.wait_for(lambda: len(central.reports) >= 3)
    assert {report["state"] for report in central.reports[1:]} == {"idle"}
    assert len({report["session"] for report in central.reports}) == 1
    assert all(context.valid({"traceparent": call.headers["traceparent"]}) for call in central.calls)


def test_maintenance_is_obeyed_takes_no_jobs_and_ends_on_request(central: FakeCentral, start: Start) -> None:
    start()
    central.state, central.comment = "maintenance request", "new disks"
    central.wait_for(lambda: central.last()["state"] == "maintenance mode")
    job = central.offer(workload("pass"))
    central.state = "maintenance mode"
    seen = len(central.reports)
    central.wait_for(lambda: len(central.reports) > seen + 2)
    assert job.state == "queued"
    assert central.last()["maintenance_comments"] == "new disks"
    assert central.last().get("maintenance_origin") is None
    central.state, central.comment = "idle", None
    central.wait_for(finished(job))


def test_maintenance_is_remembered_over_a_restart(central: FakeCentral, start: Start) -> None:
    daemon = start()
    assert daemon.command("maintenance", "on", "--comment", "belt broken").returncode == 0
    central.wait_for(lambda: central.last()["state"] == "maintenance mode")
    assert central.last()["maintenance_origin"] == "local"
    daemon.process.terminate()
    assert daemon.process.wait(20) == 0
    assert central.last()["state"] == "offline maintenance"
    again = start()
    assert central.last()["state"] == "maintenance mode"
    assert central.last()["maintenance_comments"] == "belt broken"
    kept = again.status()["maintenance"]
    assert (kept["comment"], kept["origin"]) == ("belt broken", "local")
    assert again.command("maintenance", "off").returncode == 0
    central.wait_for(lambda: central.last()["state"] == "idle")


def test_queues_and_concurrency_of_the_reply_are_obeyed(central: FakeCentral, start: Start) -> None:
    start(concurrency=1)
    central.queues, central.concurrency = ["fast"], 2
    central.wait_for(lambda: central.last()["sysinfo"]["concurrency"] == 2)
    assert central.last()["queues"] == ["fast"]
    gate = central.offer(workload("wait_for_file('/nonexistent')"))
    other = central.offer(workload("pass"))
    central.wait_for(finished(other))
    assert gate.state == "running"


@pytest.mark.parametrize("transport", ["polling"])
def test_jobs_are_fetched_of_the_queues_of_the_reply(central: FakeCentral, start: Start) -> None:
    start()
    central.queues = ["fast"]

    def fetches() -> list[Any]:
        return [call.json for call in central.calls if "/fetch/" in call.path]

    central.wait_for(lambda: fetches() and fetches()[-1].get("queues") == ["fast"])
    assert all(fetch["claims"] is True for fetch in fetches())


def test_shutdown_request_drains_and_says_offline(central: FakeCentral, start: Start) -> None:
    daemon = start()
    central.state = "shutdown request"
    central.wait_for(lambda: daemon.exit_code() is not None)
    assert daemon.exit_code() == 0
    assert central.last()["state"] == "offline"


def test_drain_finishes_jobs_takes_none_and_reports_terminating(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    daemon = start()
    go = tmp_path / "go"
    job = central.offer(workload(f"wait_for_file({str(go)!r}); log(b'done\\n')"))
    central.wait_for(lambda: job.state == "running")
    daemon.process.send_signal(signal.SIGTERM)
    central.wait_for(lambda: central.last()["state"] == "terminating")
    late = central.offer(workload("pass"))
    seen = len(central.reports)
    central.wait_for(lambda: len(central.reports) > seen + 1)
    go.touch()
    assert daemon.process.wait(20) == 0
    assert (job.state, bytes(job.log)) == ("success", b"done\n")
    assert late.state == "queued"
    assert central.last()["state"] == "offline"


def test_forgotten_worker_registers_again(central: FakeCentral, start: Start) -> None:
    start()
    central.registered = False
    central.wait_for(lambda: central.registered)
    assert sum(call.method == "POST" and "/v1/worker/" in call.path for call in central.calls) >= 2


def test_replaced_daemon_finishes_its_jobs_takes_none_and_leaves_without_a_word(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    daemon = start()
    go = tmp_path / "go"
    job = central.offer(workload(f"wait_for_file({str(go)!r})"))
    central.wait_for(lambda: job.state == "running")
    central.faults.append(
        lambda call: refusal(409, "SessionReplaced", "Another daemon is here.") if "/v1/worker/" in call.path else None
    )
    central.wait_for(lambda: "Another daemon is here." in daemon.said)
    seen = len(central.calls)
    go.touch()
    assert daemon.process.wait(20) == 4
    assert job.end is not None
    assert not [call for call in central.calls[seen:] if "/v1/worker/" in call.path]


@pytest.mark.parametrize(
    ("status", "error"), [(403, "Forbidden"), (400, "VersionRefused"), (409, "NameTaken")], ids=str
)
def test_refused_registration_ends_with_a_clear_message(
    central: FakeCentral, start: Start, status: int, error: str
) -> None:
    central.faults.append(lambda call: refusal(status, error, "Not with that hat."))
    daemon = start(registered=False)
    assert daemon.process.wait(20) == 3
    assert "Not with that hat." in daemon.said


def test_registration_waits_for_a_server_that_is_down(central: FakeCentral, start: Start) -> None:
    central.down = True
    daemon = start(registered=False)
    central.wait_for(lambda: len(central.calls + central.upgrades) >= 2)
    central.down = False
    central.wait_for(lambda: central.registered)
    assert daemon.exit_code() is None


def test_second_daemon_of_a_state_folder_is_refused(central: FakeCentral, start: Start) -> None:
    first = start()
    second = start(registered=False)
    assert second.process.wait(20) == 2
    assert f"pid {first.pid}" in second.said
    assert len(second.said.splitlines()) == 1


def test_admin_socket_and_files_are_private(central: FakeCentral, start: Start) -> None:
    daemon = start()
    central.wait_for((daemon.state_dir / "admin.sock").exists)
    assert stat.S_IMODE((daemon.state_dir / "admin.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE(daemon.state_dir.stat().st_mode) == 0o700


def test_local_drain_and_stop_commands(central: FakeCentral, start: Start) -> None:
    daemon = start(kill_grace=5)
    job = central.offer(workload("wait_for_file('/nonexistent')"))
    central.wait_for(lambda: job.state == "running")
    assert "terminating" in daemon.command("drain").stdout
    assert daemon.command("stop").returncode == 0
    assert daemon.process.wait(20) == 0
    assert job.end is not None
    assert "stopped on this machine" in job.end["error"]
    gone = daemon.command("status")
    assert gone.returncode == 2
    assert "no edge-worker answers" in gone.stderr


def test_socket_works_in_a_deep_state_folder(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    daemon = start(state_dir=deep)
    daemon.state_dir = deep
    central.wait_for(lambda: daemon.command("status").returncode == 0)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"server": "central.example"}, "--server (EDGE_WORKER_SERVER): give a full URL"),
        ({"task_python": "/bin/true"}, "is not a usable Python"),
        ({"state_dir": "/dev/null/state"}, "--state-dir: cannot use"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_settings_end_with_one_line_that_says_what_to_do(
    start: Start, flags: dict[str, str | None], words: str
) -> None:
    daemon = start(registered=False, **flags)
    assert daemon.process.wait(20) == 2
    assert words in daemon.said
    assert len(daemon.said.splitlines()) == 1


def test_interpreter_without_airflow_is_refused(start: Start, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} -S -I "$@"\n')
    bare.chmod(0o755)
    daemon = start(registered=False, task_python=bare)
    assert daemon.process.wait(20) == 2
    assert "has no Apache Airflow" in daemon.said


def test_version_and_help() -> None:
    for option in ("--version", "--help"):
        done = subprocess.run(
            [sys.executable, "-m", "edge_worker", option],
            capture_output=True,
            text=True,
            check=True,
            env=dict(os.environ),
        )
        assert "edge-worker" in done.stdout


def test_answers_that_are_garbage_change_nothing(central: FakeCentral, start: Start) -> None:
    daemon = start()
    garbage = iter([Answer(200, raw=b"<html>"), Answer(404, raw=b"proxy says no"), Answer(502), Answer(200, {"x": 1})])
    fed: list[Call] = []

    def feed(call: Call) -> Answer | None:
        found = next(garbage, None) if "/v1/" in call.path else None
        if found:
            fed.append(call)
        return found

    central.faults.append(feed)
    central.wait_for(lambda: len(fed) == 4)
    seen = len(central.reports)
    central.wait_for(lambda: len(central.reports) > seen)
    job = central.offer(workload("pass"))
    central.wait_for(finished(job))
    assert daemon.exit_code() is None


@pytest.mark.parametrize("transport", ["polling"])
def test_page_of_the_network_neither_confirms_a_job_nor_takes_its_end(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    garbage = [PAGE, Answer(200, raw=b""), Answer(200, {"x": 1})]
    fed: dict[str, list[Answer]] = {"running": list(garbage), "success": list(garbage)}
    mark = tmp_path / "ran"
    early: list[bool] = []

    def feed(call: Call) -> Answer | None:
        kind = call.path.rpartition("/")[2]
        if kind == "running":
            early.append(mark.exists())
        return fed[kind].pop(0) if fed.get(kind) else None

    central.faults.append(feed)
    start()
    job = central.offer(workload(f"Path({str(mark)!r}).touch()"))
    central.wait_for(finished(job))
    assert early == [False] * 4
    assert fed == {"running": [], "success": []}
    assert job.state == "success"


@pytest.mark.parametrize("transport", ["polling"])
def test_offer_that_comes_after_the_drain_began_is_declined(central: FakeCentral, start: Start) -> None:
    daemon = start(poll_interval=60)
    asked = threading.Event()
    drained = threading.Event()

    def hold(call: Call) -> None:
        if "/fetch/" in call.path and central.queue:
            asked.set()
            drained.wait(20)

    # The fetch is under way when the drain begins: the fake answers it, with a job, only then.
    central.faults.append(hold)
    daemon.command("status")
    holding = threading.Thread(target=lambda: (asked.wait(20), daemon.command("drain"), drained.set()))
    holding.start()
    job = central.offer(workload("pass"))
    central.concurrency = 9
    holding.join()
    assert daemon.process.wait(20) == 0
    assert job.state == "queued"
    assert job.end is None


def test_job_that_is_accepted_while_a_drain_waits_for_that_is_seen_through(central: FakeCentral, start: Start) -> None:
    daemon = start(drain_timeout=0.5, kill_grace=5)
    asked, drained = threading.Event(), threading.Event()

    def hold(call: Call) -> None:
        if call.path.endswith("/running"):
            asked.set()
            drained.wait(20)

    # The drain begins while the acceptance is on its way: it is confirmed only then.
    central.faults.append(hold)
    holding = threading.Thread(target=lambda: (asked.wait(20), daemon.command("drain"), drained.set()))
    holding.start()
    job = central.offer(workload("wait_for_file('/nonexistent')"))
    holding.join()
    assert daemon.process.wait(20) == 0
    assert job.end is not None
    assert "drain timeout of 0.5 s" in job.end["error"]
    assert central.last()["state"] == "offline"


@pytest.mark.parametrize("transport", ["polling"])
def test_acceptance_that_is_answered_too_late_for_a_drain_is_left_to_the_next_daemon(
    central: FakeCentral, start: Start
) -> None:
    left = "the next start asks again"
    first = start()

    def refuse_until_it_was_left(call: Call) -> Answer | None:
        return Answer(503) if call.path.endswith("/running") and left not in first.said else None

    central.faults.append(refuse_until_it_was_left)
    job = central.offer(workload("log(b'once\\n')"))
    central.wait_for(lambda: [call for call in central.calls if call.path.endswith("/running")])
    first.command("drain")
    assert first.process.wait(30) == 0
    assert left in first.said
    assert job.state == "assigned"
    start()
    central.wait_for(finished(job))
    assert bytes(job.log) == b"once\n"


@pytest.mark.parametrize("transport", ["polling"])
def test_offer_that_is_written_down_while_a_drain_begins_is_declined(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    asked, go, slow = tmp_path / "asked", tmp_path / "go", tmp_path / "slow"
    slow.mkdir()
    (slow / "sitecustomize.py").write_text(
        "import time\n"
        "from pathlib import Path\n"
        "from edge_worker.journal import JobFolder\n"
        "write = JobFolder.open\n"
        "def open_slowly(*arguments):\n"
        f"    Path({str(asked)!r}).touch()\n"
        f"    while not Path({str(go)!r}).exists():\n"
        "        time.sleep(0.02)\n"
        "    write(*arguments)\n"
        "JobFolder.open = open_slowly\n"
    )
    daemon = start(env={"PYTHONPATH": str(slow)}, poll_interval=60)
    job = central.offer(workload("pass"))
    central.concurrency = 9
    central.wait_for(asked.exists)
    daemon.command("drain")
    go.touch()
    assert daemon.process.wait(20) == 0
    assert (job.state, job.end, daemon.folders()) == ("queued", None, [])


def test_refused_worker_that_has_jobs_keeps_trying(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    go = tmp_path / "go"
    first = start()
    job = central.offer(workload(f"wait_for_file({str(go)!r})"))
    central.wait_for(lambda: first.folders() and (first.folders()[0] / "process.json").exists())
    first.process.kill()
    first.process.wait(10)
    central.faults.append(lambda call: refusal(403, "Forbidden", "Not you.") if "/v1/worker/" in call.path else None)
    second = start(registered=False)
    central.wait_for(lambda: "registration refused: Not you." in second.said)
    go.touch()
    central.wait_for(finished(job))
    assert second.exit_code() is None
