"""Jobs: accepted before they start, stopped when they are stale, seen through over crashes and outages."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from conftest import Daemon, Start, finished, workload
from fake_server import CUT_AFTER, Answer, Call, FakeCentral, refusal

FOREVER = "log(b'begun\\n'); wait_for_file('/nonexistent')"


def pid_of(daemon: Daemon) -> int:
    return int(json.loads((daemon.folders()[0] / "process.json").read_text())["pid"])


def running(central: FakeCentral, daemon: Daemon) -> int:
    """Wait for the only job to run; return its pid."""
    central.wait_for(lambda: daemon.folders() and (daemon.folders()[0] / "process.json").exists())
    return pid_of(daemon)


def grow_log(daemon: Daemon) -> None:
    with (daemon.folders()[0] / "logs/dag_id=d/attempt=1.log").open("ab") as handle:
        handle.write(b"more\n")


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_job_runs_after_its_acceptance_and_is_reported_with_its_log(
    central: FakeCentral, start: Start, launch: str
) -> None:
    daemon = start(launch=launch)
    job = central.offer(
        workload(
            "log(b'hello\\n')\n"
            "log(json.dumps([server, os.environ['AIRFLOW__CORE__EXECUTION_API_SERVER_URL']]).encode())"
        )
    )
    central.wait_for(finished(job))
    assert job.state == "success"
    assert job.end is not None
    assert job.end["exit_code"] == 0
    first, urls = bytes(job.log).split(b"\n")
    assert first == b"hello"
    assert json.loads(urls) == [f"{central.origin}/execution/"] * 2
    central.wait_for(lambda: daemon.folders() == [])


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_nothing_starts_before_the_acceptance_is_confirmed(
    central: FakeCentral, start: Start, tmp_path: Path, launch: str
) -> None:
    mark = tmp_path / "ran"
    refused: list[Call] = []

    def hold(call: Call) -> Answer | None:
        if call.path.endswith("/running") and len(refused) < 3:
            refused.append(call)
            assert not mark.exists()
            return Answer(503)
        return None

    central.faults.append(hold)
    start(launch=launch)
    job = central.offer(workload(f"Path({str(mark)!r}).touch()"))
    central.wait_for(finished(job))
    assert mark.exists()
    assert len(refused) == 3


def test_stale_acceptance_starts_nothing(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    central.faults.append(lambda call: refusal(409, "StaleClaim") if call.path.endswith("/running") else None)
    daemon = start()
    job = central.offer(workload(f"Path({str(mark)!r}).touch()"))
    central.wait_for(lambda: "not started" in daemon.said)
    central.wait_for(lambda: daemon.folders() == [])
    assert not mark.exists()
    assert job.end is None


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_stale_claim_stops_the_process_and_forgets_the_job(central: FakeCentral, start: Start, launch: str) -> None:
    daemon = start(launch=launch)
    job = central.offer(workload(FOREVER))
    pid = running(central, daemon)
    central.wait_for(lambda: bytes(job.log) == b"begun\n")
    job.offer["claim"] = 2
    grow_log(daemon)
    central.wait_for(lambda: gone(pid))
    central.wait_for(lambda: daemon.folders() == [])
    assert job.end is None
    assert daemon.exit_code() is None


@pytest.mark.parametrize("transport", ["channel"])
@pytest.mark.parametrize("restarted", [False, True])
def test_job_that_is_taken_away_is_stopped_and_the_rest_of_its_log_shipped(
    central: FakeCentral, start: Start, restarted: bool
) -> None:
    away = [Answer(503)]
    central.faults.append(lambda call: away[0] if away and call.path.endswith(("/log", "/failed")) else None)
    daemon = start()
    job = central.offer(workload("log(b'x' * 9000 + b'half a li'); wait_for_file('/nonexistent')"))
    pid = running(central, daemon)
    written = daemon.folders()[0] / "logs/dag_id=d/attempt=1.log"
    central.wait_for(written.exists)
    job.withdraw()
    assert central.channel is not None
    central.channel.send(type="cancel", id=job.id, claim=1)
    central.wait_for(lambda: gone(pid))
    if restarted:
        daemon.process.kill()
        daemon.process.wait(10)
    assert not job.log
    away.clear()
    daemon = start() if restarted else daemon
    central.wait_for(finished(job))
    central.wait_for(lambda: daemon.folders() == [])
    assert bytes(job.log) == b"x" * 9000 + b"half a li"


@pytest.mark.parametrize("transport", ["channel"])
def test_job_whose_log_is_refused_can_be_taken_away(central: FakeCentral, start: Start) -> None:
    central.faults.append(lambda call: refusal(400, "LogRefused") if call.path.endswith("/log") else None)
    daemon = start()
    job = central.offer(workload(FOREVER))
    pid = running(central, daemon)
    central.wait_for(lambda: "the server does not take" in daemon.said)
    assert central.channel is not None
    central.channel.send(type="cancel", id=job.id, claim=1)
    central.wait_for(lambda: gone(pid))
    central.wait_for(lambda: daemon.folders() == [])
    assert job.end is None


def test_the_log_of_a_job_whose_end_came_too_late_is_shipped_all_the_same(central: FakeCentral, start: Start) -> None:
    """A task that was deferred may run elsewhere before the end of its first part has been reported."""
    refused: list[Call] = []

    def late(call: Call) -> Answer | None:
        if call.path.endswith("/success"):
            refused.append(call)
            return refusal(409, "StaleClaim")
        return Answer(503) if call.path.endswith("/log") and not refused else None

    central.faults.append(late)
    daemon = start()
    job = central.offer(workload("log(b'the first part')"))
    central.wait_for(lambda: bytes(job.log) == b"the first part")
    central.wait_for(lambda: daemon.folders() == [])
    assert len(refused) == 1


def test_new_claim_of_a_job_runs_beside_its_stale_one(central: FakeCentral, start: Start) -> None:
    daemon = start(kill_grace=0.2)
    old = central.offer(
        workload("signal.signal(signal.SIGTERM, signal.SIG_IGN); log(b'x'); wait_for_file('/nonexistent')")
    )
    pid = running(central, daemon)
    stale = daemon.folders()[0] / "logs/dag_id=d/attempt=1.log"
    central.wait_for(stale.exists)
    new = central.offer(workload("pass"), task_instance_id=old.id, claim=2)
    central.wait_for(finished(new))
    # Any call for the stale claim tells the daemon; one may have done so already, and the folder is gone.
    with suppress(FileNotFoundError), stale.open("r+b") as log:
        log.seek(0, os.SEEK_END)
        log.write(b"more\n")
    central.wait_for(lambda: gone(pid))


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_failed_and_killed_jobs_tell_why(central: FakeCentral, start: Start, launch: str) -> None:
    start(launch=launch)
    code = central.offer(workload("code = 7; print('out of paper', flush=True)\nimport sys; sys.exit(3)"))
    central.wait_for(finished(code))
    assert code.end is not None
    assert (code.state, code.end["exit_code"]) == ("failed", 1)
    lines = [json.loads(line) for line in bytes(code.log).splitlines()]
    assert any("SystemExit" in line["event"] for line in lines)
    assert all({"timestamp", "level", "event"} <= line.keys() for line in lines)
    shot = central.offer(workload("log(b'half a li'); os.kill(os.getpid(), signal.SIGKILL)"))
    central.wait_for(finished(shot))
    assert shot.end is not None
    assert (shot.state, shot.end["exit_code"]) == ("failed", -9)
    assert "signal 9" in shot.end["error"]
    half, last = bytes(shot.log).splitlines()
    assert half == b"half a li"
    assert "signal 9" in json.loads(last)["event"]


def test_rest_of_a_session_dies_with_its_supervisor(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    do = (
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '600'], preexec_fn=lambda: os.setpgid(0, 0))\n"
        f"Path({str(note)!r}).write_text(str(child.pid))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    start()
    job = central.offer(workload(do))
    central.wait_for(finished(job))
    central.wait_for(lambda: gone(int(note.read_text())))


def test_launch_that_fails_twice_fails_the_job_and_says_so_in_its_log(central: FakeCentral, start: Start) -> None:
    daemon = start(launch="zygote", env={"STUB_ZYGOTE_FAILS": "1"})
    job = central.offer(workload("pass"))
    central.wait_for(finished(job))
    assert job.state == "failed"
    assert job.end is not None
    assert "this zygote cannot start" in job.end["error"]
    assert "this zygote cannot start" in bytes(job.log).decode()
    assert daemon.said.count("failed: the zygote has ended") == 2


def test_zygote_that_dies_is_replaced_and_its_children_go_on(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    daemon = start(launch="zygote")
    first = central.offer(workload(f"wait_for_file({str(go)!r}); log(b'survived')"))
    running(central, daemon)
    zygote = psutil.Process(daemon.pid).children()[0]
    zygote.kill()
    central.wait_for(lambda: gone(zygote.pid))
    second = central.offer(workload("pass"))
    central.wait_for(finished(second))
    go.touch()
    central.wait_for(finished(first))
    assert (first.state, bytes(first.log)) == ("success", b"survived")


def test_idle_zygote_goes(central: FakeCentral, start: Start) -> None:
    daemon = start(launch="zygote", zygote_idle=0.2)
    for _ in range(2):
        job = central.offer(workload("pass"))
        central.wait_for(finished(job))
        central.wait_for(lambda: not psutil.Process(daemon.pid).children())


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_drain_timeout_terminates_then_kills_and_reports_failed(
    central: FakeCentral, start: Start, launch: str
) -> None:
    daemon = start(drain_timeout=0.3, kill_grace=0.3, launch=launch)
    gentle = central.offer(workload(FOREVER))
    stubborn = central.offer(
        workload("signal.signal(signal.SIGTERM, signal.SIG_IGN); log(b'no\\n'); wait_for_file('/nonexistent')")
    )
    central.wait_for(lambda: gentle.log and stubborn.log)
    daemon.process.terminate()
    assert daemon.process.wait(20) == 0
    for job, code in ((gentle, -15), (stubborn, -9)):
        assert job.end is not None
        assert (job.state, job.end["exit_code"]) == ("failed", code)
        assert "drain timeout of 0.3 s" in job.end["error"]
        assert b"drain timeout" in job.log
        assert job.log_complete
    assert central.last()["state"] == "offline"


def test_second_signal_stops_jobs_now(central: FakeCentral, start: Start) -> None:
    daemon = start()
    job = central.offer(workload(FOREVER))
    running(central, daemon)
    daemon.process.terminate()
    central.wait_for(lambda: central.last()["state"] == "terminating")
    assert job.end is None
    daemon.process.terminate()
    assert daemon.process.wait(20) == 0
    assert job.state == "failed"


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_killed_daemon_is_followed_by_one_that_adopts_running_jobs(
    central: FakeCentral, start: Start, tmp_path: Path, launch: str
) -> None:
    go = tmp_path / "go"
    first = start(launch=launch)
    job = central.offer(workload(f"log(b'before\\n'); wait_for_file({str(go)!r}); log(b'after\\n')"))
    pid = running(central, first)
    central.wait_for(lambda: bytes(job.log) == b"before\n")
    first.process.kill()
    first.process.wait(10)
    assert not gone(pid)
    second = start(launch=launch)
    assert second.exit_code() is None
    words = [report for report in central.reports if report["session"] == central.last()["session"]]
    assert words[0]["state"] == "starting"
    assert words[0]["jobs"] == [{"id": job.id, "claim": 1, "slots": 1}]
    central.wait_for(lambda: central.last()["state"] == "running")
    go.touch()
    central.wait_for(finished(job))
    assert (job.state, bytes(job.log)) == ("success", b"before\nafter\n")
    central.wait_for(lambda: second.folders() == [])
    lines = [json.loads(line) for line in second.said.splitlines() if f"job {job.id}" in line]
    assert len(lines) == 3
    assert len({line["span_id"] for line in lines}) == 1


@pytest.mark.parametrize(
    ("launch", "do", "state", "code"),
    [("zygote", "log(b'x' * 9000)", "success", 0), ("interpreter", "1/0", "failed", 1)],
)
def test_job_that_ended_without_a_daemon_is_reported_by_the_next(
    central: FakeCentral, start: Start, tmp_path: Path, launch: str, do: str, state: str, code: int
) -> None:
    go = tmp_path / "go"
    first = start(launch=launch)
    job = central.offer(workload(f"wait_for_file({str(go)!r}); {do}"))
    pid = running(central, first)
    first.process.kill()
    first.process.wait(10)
    go.touch()
    central.wait_for(lambda: gone(pid))
    start(launch=launch)
    central.wait_for(finished(job))
    assert job.end is not None
    assert (job.state, job.end["exit_code"]) == (state, code)


def test_job_killed_without_a_daemon_is_reported_failed(central: FakeCentral, start: Start) -> None:
    first = start(launch="zygote")
    job = central.offer(workload(FOREVER))
    pid = running(central, first)
    first.process.kill()
    first.process.wait(10)
    os.kill(pid, signal.SIGKILL)
    central.wait_for(lambda: gone(pid))
    start(launch="zygote")
    central.wait_for(finished(job))
    assert job.state == "failed"


def test_offer_whose_acceptance_was_not_answered_is_accepted_by_the_next_daemon(
    central: FakeCentral, start: Start
) -> None:
    lost: list[Call] = []

    def lose(call: Call) -> object | None:
        if call.path.endswith("/running") and not lost:
            lost.append(call)
            return CUT_AFTER
        return Answer(503) if call.path.endswith("/running") and len(lost) == 1 else None

    central.faults.append(lose)
    first = start()
    job = central.offer(workload("log(b'once\\n')"))
    central.wait_for(lambda: lost)
    first.process.kill()
    first.process.wait(10)
    central.faults.clear()
    start()
    central.wait_for(finished(job))
    assert bytes(job.log) == b"once\n"


def test_corrupt_folder_is_set_aside_and_the_rest_goes_on(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    broken = tmp_path / "state" / "jobs" / "00000000-0000-0000-0000-000000000001-1"
    broken.mkdir(parents=True)
    (broken / "offer.json").write_text("{half")
    (broken / "workload.json").write_text("secret")
    daemon = start()
    job = central.offer(workload("pass"))
    central.wait_for(finished(job))
    moved = list((daemon.state_dir / "broken").iterdir())
    assert len(moved) == 1
    assert not (moved[0] / "workload.json").exists()
    assert "records are not readable" in daemon.said


def test_outage_in_mid_job_changes_nothing_in_the_end(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    go = tmp_path / "go"
    daemon = start()
    job = central.offer(workload(f"log(b'a' * 5000); wait_for_file({str(go)!r}); log(b'b' * 5000)"))
    central.wait_for(lambda: len(job.log) == 5000)
    central.down = True
    go.touch()
    central.wait_for(lambda: daemon.folders() and (daemon.folders()[0] / "report.json").exists())
    seen = len(central.calls + central.upgrades)
    central.wait_for(lambda: len(central.calls + central.upgrades) > seen + 3)
    assert job.end is None
    central.down = False
    central.wait_for(finished(job))
    assert bytes(job.log) == b"a" * 5000 + b"b" * 5000


def test_lost_answer_to_the_end_is_reported_again_and_once_is_enough(central: FakeCentral, start: Start) -> None:
    lost: list[Call] = []

    def lose(call: Call) -> object | None:
        if call.path.endswith("/success") and len(lost) < 2:
            lost.append(call)
            return CUT_AFTER
        return None

    central.faults.append(lose)
    daemon = start()
    job = central.offer(workload("pass"))
    central.wait_for(lambda: job.end is not None and daemon.folders() == [])
    assert len(lost) == 2


@pytest.mark.parametrize("transport", ["polling"])
def test_end_that_the_server_will_never_take_is_dropped(central: FakeCentral, start: Start) -> None:
    central.faults.append(lambda call: refusal(422, "BadInput") if call.path.endswith("/success") else None)
    daemon = start()
    central.offer(workload("pass"))
    central.wait_for(lambda: "does not take its end" in daemon.said)
    central.wait_for(lambda: daemon.folders() == [])
    assert daemon.exit_code() is None


def test_no_secret_on_command_lines_in_environments_or_in_the_log(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    file = tmp_path / "task.env"
    file.write_text("# for tasks\nFOO='bar baz'\n")
    daemon = start(
        launch="zygote", log_level="debug", task_env_file=file, env={"EDGE_WORKER_LOG_FORMAT": "json", "KEPT": "yes"}
    )
    job = central.offer(workload(f"log(json.dumps(dict(os.environ)).encode()); wait_for_file({str(go)!r})"))
    central.wait_for(lambda: job.log)
    processes = [psutil.Process(daemon.pid), *psutil.Process(daemon.pid).children(recursive=True)]
    lines = [" ".join(process.cmdline()) for process in processes]
    folder = daemon.folders()[0]
    assert not (folder / "workload.json").exists()
    assert folder.stat().st_mode & 0o077 == 0
    go.touch()
    central.wait_for(finished(job))
    env = json.loads(bytes(job.log))
    assert (env["FOO"], env["KEPT"]) == ("bar baz", "yes")
    assert not [name for name in env if name.startswith("EDGE_WORKER")]
    for secret in ("secret-of-the-first", "workload-token-secret"):
        assert all(secret not in line for line in lines)
        assert secret not in daemon.said
        assert secret not in json.dumps(env)
    assert all(json.loads(line)["event"] for line in daemon.said.splitlines())


def test_log_path_that_leaves_the_folder_is_not_shipped(central: FakeCentral, start: Start) -> None:
    start()
    job = central.offer(workload("pass", log_path="../../../../../../etc/hostname"))
    central.wait_for(finished(job))
    assert bytes(job.log) == b""
