"""The daemon's log as its heartbeats take it along, to a fake central site and to the real Edge API."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from conftest import Daemon, Start, finished, workload
from edge_worker.logtail import STRIKES
from fake_server import CUT, CUT_AFTER, Answer, Call, FakeCentral
from replicas import Replicas
from served import Api, new_token

from demo.process import free_port
from demo.wait import wait_for
from edge_otel.models import worker_log, workers
from edge_otel.models.worker_log import Line

NewSession = Callable[[], AbstractContextManager[Any]]

FLOOD = """
import logging, pathlib, threading
def flood():
    while not pathlib.Path({begin!r}).exists():
        threading.Event().wait(0.01)
    for number in range(10_000):
        logging.getLogger("edge_worker.flood").info("flood %d", number)
    pathlib.Path({done!r}).touch()
threading.Thread(target=flood, daemon=True).start()
"""
"""As a defect in the daemon would."""


def logged(daemon: Daemon) -> list[str]:
    """What the daemon has written to its own log from INFO on, as it is reported."""
    lines = [json.loads(line) for line in daemon.said.splitlines()]
    return [line["event"] for line in lines if line["level"] != "debug"]


def reported(central: FakeCentral) -> list[dict[str, Any]]:
    """All lines that came, in the order in which they came, also those that came again."""
    return [line for report in central.reports for line in report.get("log", {}).get("lines", [])]


def beats(central: FakeCentral, count: int = 2) -> None:
    seen = len(central.reports)
    central.wait_for(lambda: len(central.reports) >= seen + count)


def say(daemon: Daemon, *texts: str) -> None:
    """Have the daemon log each text: three lines for each pair of commands."""
    for text in texts:
        for command in (("on", "--comment", text), ("off",)):
            done = daemon.command("maintenance", *command)
            assert done.returncode == 0, done.stderr


def test_what_is_logged_comes_once_with_level_and_logger(central: FakeCentral, start: Start) -> None:
    daemon = start(log_level="debug")
    job = central.offer(workload("log(b'x')"))
    central.wait_for(finished(job))
    say(daemon, "one", "two")
    central.wait_for(lambda: len(reported(central)) >= len(logged(daemon)))
    beats(central)
    assert [line["text"] for line in reported(central)] == logged(daemon)
    assert [line["number"] for line in reported(central)] == list(range(1, len(logged(daemon)) + 1))
    assert {line["level"] for line in reported(central)} == {20}
    assert {"edge_worker.loop", "edge_worker.station"} <= {line["logger"] for line in reported(central)}
    assert len({report["log"]["source"] for report in central.reports if "log" in report}) == 1
    # What refuses a registration would end a daemon that nobody knows.
    assert "log" not in central.reports[0]


def test_heartbeats_without_news_have_no_word_of_the_log(central: FakeCentral, start: Start) -> None:
    daemon = start()
    central.wait_for(lambda: len(reported(central)) == len(logged(daemon)))
    beats(central)
    seen, said = len(central.reports), len(logged(daemon))
    beats(central, 5)
    assert len(logged(daemon)) == said
    assert not [report for report in central.reports[seen:] if "log" in report]


@pytest.mark.parametrize("how", [CUT, CUT_AFTER], ids=["lost", "answer_lost"])
def test_lines_of_a_report_that_was_not_answered_come_again_with_their_numbers(
    central: FakeCentral, start: Start, how: object
) -> None:
    daemon = start()
    beats(central)
    seen = 0

    def every_third(call: Call) -> Any:
        nonlocal seen
        if "/v1/worker/" not in call.path or "log" not in call.json:
            return None
        seen += 1
        return how if seen % 3 == 1 else None

    central.faults.append(every_third)
    say(daemon, "one")
    central.wait_for(lambda: seen >= 2)
    say(daemon, "two")
    while seen < 5:
        # Lines may have come together.
        say(daemon, "more")
        beats(central)
    central.faults.clear()
    central.wait_for(lambda: {line["number"] for line in reported(central)} == set(range(1, len(logged(daemon)) + 1)))
    by_number = {line["number"]: line["text"] for line in reported(central)}
    assert [by_number[number] for number in sorted(by_number)] == logged(daemon)
    assert sum(text.endswith(": two") for text in logged(daemon)) == 1


def test_a_proxy_that_does_not_like_a_line_does_not_silence_the_worker(central: FakeCentral, start: Start) -> None:
    daemon = start()
    beats(central)

    disliked = 0

    def dislike(call: Call) -> Any:
        nonlocal disliked
        lines = call.json.get("log", {}).get("lines", []) if "/v1/worker/" in call.path else []
        if not any("etc/passwd" in line["text"] for line in lines):
            return None
        disliked += 1
        return CUT if call.headers.get("x-channel") else Answer(406, raw=b"<h1>Not acceptable</h1>")

    central.faults.append(dislike)
    say(daemon, "/etc/passwd")
    central.wait_for(lambda: disliked == STRIKES)
    beats(central)
    say(daemon, "all is well")
    central.wait_for(lambda: any("all is well" in line["text"] for line in reported(central)))
    assert disliked == STRIKES


def test_no_line_has_a_token(central: FakeCentral, start: Start) -> None:
    daemon = start()
    say(daemon, f"with {central.token}", "Authorization: Bearer s3cret", "at http://u:s3cret@proxy/", "last")
    central.wait_for(lambda: any(line["text"].endswith("last") for line in reported(central)))
    texts = [line["text"] for line in reported(central)]
    assert "maintenance begins (local): with ewt_one.…" in texts
    assert not [text for text in texts if "s3cret" in text or "secret-of-the-first" in text]


def test_none_go_where_none_are_wanted(central: FakeCentral, start: Start) -> None:
    daemon = start(log_lines=0)
    say(daemon, "one")
    beats(central)
    assert not [report for report in central.reports if "log" in report]


def test_fewer_go_where_fewer_are_wanted(central: FakeCentral, start: Start) -> None:
    start(log_lines=2)
    beats(central, 3)
    assert {len(report["log"]["lines"]) for report in central.reports if "log" in report} == {2}


def test_a_flood_is_bounded_and_makes_no_heartbeat(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    begin, done = tmp_path / "begin", tmp_path / "done"
    (tmp_path / "sitecustomize.py").write_text(FLOOD.format(begin=str(begin), done=str(done)))
    daemon = start(env={"PYTHONPATH": str(tmp_path)}, heartbeat_interval=600)
    # That which follows registration is the last for ten minutes.
    central.wait_for(lambda: any("registered as" in line["text"] for line in reported(central)))
    seen = len(central.reports)
    begin.touch()
    central.wait_for(done.exists)
    assert daemon.status()["state"] == "idle"
    assert len(central.reports) == seen
    say(daemon, "after")
    central.wait_for(lambda: any(line["text"].endswith("after") for line in reported(central)))
    lines = central.reports[seen]["log"]["lines"]
    assert [line["text"] for line in lines] == [*(f"flood {n}" for n in range(9951, 10_000)), lines[-1]["text"]]
    assert lines[-1]["text"].endswith(": after")


def stored(database: NewSession) -> list[Line]:
    """Return what is stored of the worker's log."""
    with database() as session:
        return worker_log.tail(session, "site-1")


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_the_api_keeps_the_lines_of_one_daemon_after_those_of_another(
    database: NewSession, channel_api: Api, start: Start, tmp_path: Path
) -> None:
    def begin() -> Daemon:
        (tmp_path / "token").write_text(new_token("site-1"))
        (tmp_path / "token").chmod(0o600)
        return start(server=channel_api.url, registered=False, heartbeat_interval=0.3)

    def texts() -> list[str]:
        return [line.text for line in stored(database)]

    first = begin()
    wait_for(lambda: any("registered as" in text for text in texts()), "the first lines", timeout=30)
    say(first, "of the first")
    wait_for(lambda: texts() == logged(first), "its lines", timeout=30)
    first.process.terminate()
    assert first.process.wait(20) == 0
    # What it says after its last heartbeat stays at the site.
    wait_for(lambda: any(text.startswith("draining") for text in texts()), "its last lines", timeout=10)
    told = texts()
    assert told == logged(first)[: len(told)]
    second = begin()
    wait_for(lambda: any("registered as" in text for text in texts()[len(told) :]), "the next daemon", timeout=30)
    wait_for(lambda: texts() == told + logged(second), "all of its lines", timeout=30)
    assert len({line.source for line in stored(database)}) == 2
    second.process.kill()
    second.process.wait(10)
    with database() as session:
        workers.expire_silent(session, 30.0, workers.get(session, "site-1").last_heartbeat.replace(year=2037))
    assert texts() == told + logged(second)
    with database() as session:
        history = workers.get(session, "site-1").load_history
    assert [len(history[series]) for series in ("cpu", "memory")] == [1, 1]
    assert 0 < history["memory"][0] <= 100


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("transport", ["channel"])
def test_lines_are_stored_once_though_the_server_that_has_answered_is_killed(
    database_url: str, database: NewSession, launcher: Replicas, start: Start, tmp_path: Path
) -> None:
    port = free_port()
    killed = "after heartbeat_ack, before the lines of a log are stored"
    replica = launcher.start(database_url, port=port, dies=killed)
    (tmp_path / "token").write_text(new_token("site-1"))
    (tmp_path / "token").chmod(0o600)
    daemon = start(server=replica.url, registered=False, heartbeat_interval=0.2)
    replica.wait_ended()
    say(daemon, "while none is there")
    launcher.start(database_url, port=port)
    wait_for(lambda: [line.text for line in stored(database)] == logged(daemon), "all lines", timeout=60)
