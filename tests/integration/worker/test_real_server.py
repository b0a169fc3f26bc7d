"""The daemon and the real Edge API, whose processes are stopped and killed meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import Daemon, Start, workload
from replicas import Replica, Replicas
from rows import queue_job, state_of
from served import new_token

from demo.process import free_port
from demo.wait import wait_for
from edge_otel.models import wishes, workers

pytestmark = [
    pytest.mark.parametrize("database_url", ["postgresql"], indirect=True),
    pytest.mark.parametrize("transport", ["auto"]),
]

NewSession = Callable[[], AbstractContextManager[Any]]


@pytest.fixture
def begin(start: Start, database: NewSession, tmp_path: Path) -> Callable[[Replica], Daemon]:
    def begin(replica: Replica, **options: Any) -> Daemon:
        (tmp_path / "token").write_text(new_token("site-1"))
        (tmp_path / "token").chmod(0o600)
        return start(server=replica.url, registered=False, concurrency=4, launch="zygote", **options)

    return begin


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_jobs_run_once_each_while_servers_come_and_go(
    database_url: str,
    database: NewSession,
    launcher: Replicas,
    begin: Callable[[Replica], Daemon],
    tmp_path: Path,
    end: str,
) -> None:
    port = free_port()
    replica = launcher.start(database_url, port=port)
    daemon = begin(replica)
    mark = tmp_path / "ran"
    command = workload(f"Path({str(mark)!r}).open('a').write('x'); time.sleep(0.2); log(b'hello')")
    with database() as session:
        jobs = [queue_job(session, datetime.now(UTC), workload=json.dumps(command)) for _ in range(24)]

    def ended() -> int:
        with database() as session:
            return sum(str(state_of(session, job)) == "success" for job in jobs)

    for count in (4, 12):
        wait_for(lambda least=count: ended() >= least, "some jobs to end", timeout=60)
        getattr(replica, end)()
        replica = launcher.start(database_url, port=port)
    wait_for(lambda: ended() == len(jobs), "all jobs to end", timeout=90)
    wait_for(lambda: daemon.folders() == [], "the logs", timeout=30)
    assert len(mark.read_text()) == len(jobs)
    assert "by channel" in daemon.said
    daemon.process.terminate()
    assert daemon.process.wait(30) == 0

    def stored() -> str:
        with database() as session:
            return str(workers.get(session, "site-1").state)

    wait_for(lambda: stored() == "offline", "the last heartbeat", timeout=10)


def test_automatic_maintenance_is_stored_as_such_and_an_administrator_can_make_it_theirs(
    database_url: str, database: NewSession, launcher: Replicas, begin: Callable[[Replica], Daemon], tmp_path: Path
) -> None:
    level = tmp_path / "level"
    level.write_text("40")
    read = f"return {{'status': pathlib.Path({str(level)!r}).read_text(), 'status_text': 'torn'}}"
    (tmp_path / "site_facts.py").write_text(f"import pathlib\ndef read():\n    {read}\n")
    rules = {"automatic_maintenance_on": "error", "automatic_maintenance_exit": "info", "heartbeat_interval": 0.3}
    daemon = begin(
        launcher.start(database_url),
        env={"PYTHONPATH": str(tmp_path)},
        facts_function="site_facts:read",
        telemetry_interval=0.2,
        **rules,
    )

    def stored() -> tuple[str, str | None, str | None]:
        with database() as session:
            worker = workers.get(session, "site-1")
            return str(worker.state), worker.maintenance_origin, worker.maintenance_comment

    wait_for(lambda: "by channel" in daemon.said, "the worker", timeout=30)
    wait_for(lambda: stored() == ("maintenance mode", "automatic", "torn"), "maintenance", timeout=10)
    with database() as session:
        wishes.request_maintenance(session, "site-1", None, datetime.now(UTC), by="test")
    wait_for(lambda: daemon.status()["maintenance"]["origin"] == "admin", "the daemon to hear", timeout=10)
    level.write_text("20")
    wait_for(lambda: "good again" in daemon.said, "the health to be good", timeout=10)
    wait_for(lambda: stored()[:2] == ("maintenance mode", "admin"), "the administrator's maintenance", timeout=10)
    with database() as session:
        wishes.end_maintenance(session, "site-1", datetime.now(UTC), by="test")
    wait_for(lambda: stored() == ("idle", None, None), "the end of maintenance", timeout=10)


@pytest.mark.parametrize("way", ["channel", "polling"])
def test_an_administrators_word_on_a_local_maintenance_is_heard_and_kept(
    database_url: str, database: NewSession, launcher: Replicas, begin: Callable[[Replica], Daemon], way: str
) -> None:
    daemon = begin(launcher.start(database_url), heartbeat_interval=0.3, transport=way)

    def kept() -> tuple[str, ...]:
        """Both sides, where the worker has reported what it has heard."""
        with database() as session:
            worker = workers.get(session, "site-1")
            stored = worker.maintenance_comment, worker.maintenance_origin
            told = daemon.status()["maintenance"]
            same = (told["comment"], told["origin"]) == stored and not worker.comments_replaced
            return (str(worker.state), *stored) if same else ()

    wait_for(lambda: f"by {way}" in daemon.said, "the worker", timeout=30)
    daemon.command("maintenance", "on", "--comment", "lunch")
    wait_for(lambda: kept() == ("maintenance mode", "lunch", "local"), "maintenance", timeout=10)
    for comment in ("back at two", "back at three"):
        with database() as session:
            wishes.change_comment(session, "site-1", comment, datetime.now(UTC), by="test")
        wait_for(lambda said=comment: kept() == ("maintenance mode", said, "local"), "the comment", timeout=10)
    daemon.command("maintenance", "comment", "back at four")
    wait_for(lambda: kept() == ("maintenance mode", "back at four", "local"), "the site's comment", timeout=10)
    with database() as session:
        wishes.request_maintenance(session, "site-1", "keep off: fire", datetime.now(UTC), by="test")
    wait_for(lambda: kept() == ("maintenance mode", "keep off: fire", "admin"), "the takeover", timeout=10)
    with database() as session:
        wishes.end_maintenance(session, "site-1", datetime.now(UTC), by="test")
    wait_for(lambda: daemon.status()["state"] == "idle", "the end of maintenance", timeout=10)


def test_wishes_of_an_administrator_are_obeyed_within_seconds(
    database_url: str, database: NewSession, launcher: Replicas, begin: Callable[[Replica], Daemon]
) -> None:
    daemon = begin(launcher.start(database_url))
    wait_for(lambda: "by channel" in daemon.said, "the worker", timeout=30)
    wait_for(lambda: daemon.status()["state"] == "idle", "the worker to be idle", timeout=30)
    with database() as session:
        wishes.request_maintenance(session, "site-1", "new disks", datetime.now(UTC), by="test")
    wait_for(lambda: daemon.status()["state"] == "maintenance mode", "maintenance", timeout=10)
    with database() as session:
        wishes.end_maintenance(session, "site-1", datetime.now(UTC), by="test")
    wait_for(lambda: daemon.status()["state"] == "idle", "the end of maintenance", timeout=10)
    with database() as session:
        wishes.set_concurrency(session, "site-1", 7, datetime.now(UTC), by="ann")
    wait_for(lambda: daemon.status()["concurrency"] == 7, "the concurrency", timeout=10)
    with database() as session:
        wishes.request_shutdown(session, "site-1", datetime.now(UTC), by="test")
    assert daemon.process.wait(20) == 0
