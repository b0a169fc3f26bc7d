"""Settings that change, and packages of tasks that change, below a real daemon with a running job."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Daemon, Start, finished, stub_interpreter, workload
from fake_server import FakeCentral, refusal

pytestmark = pytest.mark.parametrize("transport", ["channel"])


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    file = tmp_path / "worker.toml"
    file.write_text("concurrency = 2\n")
    return file


def reload(daemon: Daemon) -> subprocess.CompletedProcess[str]:
    return daemon.command("reload")


def test_what_can_change_does_and_the_rest_is_told(central: FakeCentral, start: Start, toml: Path) -> None:
    daemon = start(config=toml, launch="zygote")
    toml.write_text(
        'concurrency = 5\nlog_level = "debug"\nheartbeat_interval = 0.1\nkill_grace = 1\nteam = "blue"\n'
        'automatic_maintenance_on = "error"\n'
    )
    said = reload(daemon)
    assert said.returncode == 0
    changed, waiting = said.stdout.splitlines()
    assert {"--concurrency", "--log-level", "--heartbeat-interval", "--kill-grace", "--automatic-maintenance-on"} == {
        *changed.removeprefix("changed: ").split(", ")
    }
    assert waiting.endswith("before: --team")
    central.wait_for(lambda: central.last()["sysinfo"]["concurrency"] == 5)
    assert central.last()["heartbeat_interval"] == 0.1
    assert central.last().get("team_name") is None
    assert reload(daemon).stdout.splitlines()[0] == "changed: nothing"
    job = central.offer(workload("pass"))
    central.wait_for(finished(job))
    # Only said with --log-level debug.
    central.wait_for(lambda: '"level": "debug"' in daemon.said)


def test_sighup_does_the_same_and_queues_are_taken_over_by_the_server(
    central: FakeCentral, start: Start, toml: Path, tmp_path: Path
) -> None:
    daemon = start(config=toml)
    go = tmp_path / "go"
    job = central.offer(workload(f"wait_for_file({str(go)!r})"))
    central.wait_for(lambda: job.state == "running")
    session = central.last()["session"]
    toml.write_text('queues = ["fast", "slow"]\n')
    daemon.process.send_signal(signal.SIGHUP)
    central.wait_for(lambda: central.last().get("queues") == ["fast", "slow"])
    assert central.last()["session"] != session
    central.wait_for(lambda: daemon.status()["ready"]["ok"])
    assert daemon.status()["queues"] == ["fast", "slow"]
    go.touch()
    central.wait_for(finished(job))
    assert job.state == "success"


def test_sighup_that_comes_before_the_daemon_is_ready_is_heeded_when_it_is(
    central: FakeCentral, start: Start, toml: Path, tmp_path: Path
) -> None:
    go, slow = tmp_path / "go", tmp_path / "slow-python"
    slow.write_text(f'#!/bin/sh\nwhile [ ! -e {go} ]; do sleep 0.05; done\nexec {stub_interpreter(tmp_path)} "$@"\n')
    slow.chmod(0o755)
    daemon = start(config=toml, task_python=slow, registered=False)
    central.wait_for((daemon.state_dir / "lock").exists)
    toml.write_text("concurrency = 5\n")
    daemon.process.send_signal(signal.SIGHUP)
    go.touch()
    central.wait_for(lambda: daemon.exit_code() is not None or "changed: --concurrency" in daemon.said)
    assert daemon.exit_code() is None
    central.wait_for(lambda: central.reports and central.last()["sysinfo"]["concurrency"] == 5)


def test_question_of_the_former_session_does_not_end_the_daemon(central: FakeCentral, start: Start, toml: Path) -> None:
    daemon = start(config=toml, transport="polling")
    first = central.last()["session"]
    held: list[Any] = []

    def hold(call: Any) -> Any:
        if "/fetch/" not in call.path or call.json["session"] != first:
            return None
        held.append(call)
        with central.changed:
            central.changed.wait_for(lambda: central.last()["session"] != first, 20)
        return refusal(409, "SessionReplaced")

    # It is on its way when the session ends.
    central.faults.append(hold)
    central.wait_for(lambda: held)
    toml.write_text('queues = ["fast"]\n')
    assert reload(daemon).returncode == 0
    central.wait_for(lambda: central.last()["session"] != first)
    job = central.offer(workload("pass"))
    central.wait_for(finished(job))
    assert daemon.exit_code() is None


@pytest.mark.parametrize(
    ("text", "said"),
    [("concurrency = 0", "--concurrency"), ("= nonsense", "--config"), ("nothing = 1", "unknown setting 'nothing'")],
)
def test_bad_file_changes_nothing_and_says_why(
    central: FakeCentral, start: Start, toml: Path, text: str, said: str
) -> None:
    daemon = start(config=toml)
    toml.write_text(f"kill_grace = 1\n{text}\n")
    answer = reload(daemon)
    assert answer.returncode == 2
    assert "settings are as before" in answer.stderr
    assert said in answer.stderr
    daemon.process.send_signal(signal.SIGHUP)
    central.wait_for(lambda: "settings are as before" in daemon.said)
    seen = len(central.reports)
    central.wait_for(lambda: len(central.reports) > seen + 1)
    assert central.last()["sysinfo"]["concurrency"] == 2
    toml.write_text("concurrency = 2\n")
    assert reload(daemon).stdout.splitlines()[0] == "changed: nothing"


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_next_job_has_the_new_environment(central: FakeCentral, start: Start, tmp_path: Path, launch: str) -> None:
    file = tmp_path / "task.env"
    file.write_text("COLOUR=red\n")
    daemon = start(task_env_file=file, launch=launch, concurrency=2)
    go = tmp_path / "go"
    show = "log(os.environ['COLOUR'].encode())"
    first = central.offer(workload(f"wait_for_file({str(go)!r}); {show}"))
    central.wait_for(lambda: first.state == "running")
    file.write_text("COLOUR=blue\n")
    assert "what --task-env-file holds" in reload(daemon).stdout
    second = central.offer(workload(show))
    central.wait_for(finished(second))
    go.touch()
    central.wait_for(finished(first))
    assert (bytes(first.log), bytes(second.log)) == (b"red", b"blue")


def test_new_token_is_used_from_then_on(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    daemon = start(transport="polling")
    used: list[str] = []

    def take_both(call: Any) -> None:
        # As while a token that was rotated is still good.
        used.append(call.headers.get("authorization", ""))
        call.headers["authorization"] = f"Bearer {central.token}"

    central.faults.append(take_both)
    (tmp_path / "token").write_text("ewt_two.secret-of-the-second")
    assert reload(daemon).stdout == "changed: the token\n"
    central.wait_for(lambda: used and used[-1] == "Bearer ewt_two.secret-of-the-second")
    assert "secret-of" not in daemon.said


def upgraded(packages: Path, facts: Path, version: str) -> None:
    """Do what an installer does."""
    facts.write_text(json.dumps({"airflow_version": version, "python_version": "3.11.7", "packages": str(packages)}))
    (packages / f"apache_airflow_core-{version}.dist-info").mkdir()


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_upgraded_packages_are_used_by_the_next_job_and_reported(
    central: FakeCentral, start: Start, tmp_path: Path, launch: str
) -> None:
    packages, facts = tmp_path / "site-packages", tmp_path / "facts.json"
    packages.mkdir()
    upgraded(packages, facts, "3.3.2")
    eager = tmp_path / "eager"
    eager.mkdir()
    (eager / "sitecustomize.py").write_text("from edge_worker import renewal\nrenewal.LOOK = 0.2\n")
    daemon = start(launch=launch, concurrency=2, env={"STUB_FACTS": str(facts), "PYTHONPATH": str(eager)})
    go = tmp_path / "go"
    show = "log(str(os.getppid()).encode())"
    first = central.offer(workload(f"{show}; wait_for_file({str(go)!r})"))
    central.wait_for(lambda: first.log)
    upgraded(packages, facts, "3.3.9")
    central.wait_for(lambda: central.last()["sysinfo"]["airflow_version"] == "3.3.9")
    assert daemon.status()["versions"]["airflow_version"] == "3.3.9"
    second = central.offer(workload(show))
    central.wait_for(finished(second))
    assert (first.log == second.log) is (launch == "interpreter")
    go.touch()
    central.wait_for(finished(first))


def test_version_that_the_server_refuses_ends_no_job(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    packages, facts = tmp_path / "site-packages", tmp_path / "facts.json"
    packages.mkdir()
    upgraded(packages, facts, "3.3.2")
    daemon = start(env={"STUB_FACTS": str(facts)}, transport="polling")
    go = tmp_path / "go"
    job = central.offer(workload(f"wait_for_file({str(go)!r})"))
    central.wait_for(lambda: job.state == "running")

    def judge(call: Any) -> Any:
        wide = call.method == "POST" and "/v1/worker/" in call.path
        return refusal(400, "VersionRefused", "Change the older one.") if wide else None

    central.faults.append(judge)
    upgraded(packages, facts, "3.4.0")
    assert reload(daemon).returncode == 0
    central.wait_for(lambda: "registration refused: Change the older one." in daemon.said)
    assert daemon.command("status", "--check", "ready").returncode == 1
    go.touch()
    central.wait_for(finished(job))
    assert (job.state, daemon.exit_code()) == ("success", None)
