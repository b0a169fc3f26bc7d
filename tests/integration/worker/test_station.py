"""Maintenance as the daemon remembers it, on a disk that is as full as the test says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from edge_worker.host import Host
from edge_worker.journal import Journal, Maintenance
from edge_worker.logtail import LogTail
from edge_worker.outbox import Outbox
from edge_worker.plan import jittered
from edge_worker.settings import Settings
from edge_worker.station import Station
from edge_worker.watch import Watch

from edge_otel.state import WorkerState
from edge_otel.wire import WorkerReply

Make = Callable[..., Station]

RULES = {"automatic_maintenance_on": "error", "automatic_maintenance_exit": "info"}


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The state folder's file system."""
    found = SimpleNamespace(percent=50.0)
    monkeypatch.setattr(psutil, "disk_usage", lambda _: found)
    return found


@pytest.fixture
def make(tmp_path: Path, disk: SimpleNamespace) -> Make:
    """Return the station of a daemon that starts now."""
    (tmp_path / "token").write_text("t")

    def begin(**options: Any) -> Station:
        required = {"server": "http://127.0.0.1:9", "token_file": tmp_path / "token", "state_dir": tmp_path}
        settings = Settings.model_validate({**required, **RULES, **options})
        watch = Watch(settings, Host(tmp_path, {}, datetime.now(UTC)), None)
        return Station(settings, watch, Journal(tmp_path), {}, Outbox(tmp_path / "outbox", 1024, {}), LogTail(0))

    return begin


def origin(station: Station) -> str | None:
    station.look()
    return station.maintenance.origin if station.maintenance else None


def test_maintenance_that_ended_by_itself_begins_again_at_the_next_look(make: Make, disk: SimpleNamespace) -> None:
    station = make()
    for percent, expected in ((99, "automatic"), (50, None), (99, "automatic")):
        disk.percent = percent
        assert origin(station) == expected
    station.maintain(None)
    assert origin(station) is None


def test_maintenance_that_gets_another_comment_or_owner_has_lasted_since_its_begin(make: Make) -> None:
    station = make()
    ended: list[Maintenance] = []
    station.maintained = ended.append
    station.maintain(Maintenance("full", "automatic"))
    assert station.maintenance is not None
    since = station.maintenance.since
    station.maintain(Maintenance("I look at it", "local"))
    again = make(maintenance_comment="after a restart")
    again.maintained = ended.append
    again.maintain(None)
    assert ended == [Maintenance("after a restart", "local", since)]
    assert since > 0


@pytest.mark.parametrize("theirs", ["local", "admin"])
def test_what_an_administrator_says_of_a_maintenance_is_said_back_at_once_and_once(make: Make, theirs: str) -> None:
    station = make()
    station.maintain(Maintenance("lunch", "local"))
    state = WorkerState.MAINTENANCE_MODE
    reply = WorkerReply(
        state=state, last_update=datetime.now(UTC), maintenance_comments="fire", maintenance_origin=theirs
    )
    for news in (True, False):
        station.news.clear()
        station.hear(state, reply)
        assert station.maintenance is not None
        assert (station.maintenance.comment, station.maintenance.origin) == ("fire", theirs)
        assert station.news.is_set() is news


def test_automatic_maintenance_ends_when_the_daemon_starts_without_it(make: Make, disk: SimpleNamespace) -> None:
    disk.percent = 99
    assert origin(make()) == "automatic"
    assert origin(make(automatic_maintenance_on="off", automatic_maintenance_exit="off")) is None
    make().maintain(Maintenance("mine", "local"))
    assert origin(make(automatic_maintenance_on="off", automatic_maintenance_exit="off")) == "local"


@pytest.mark.parametrize(("exit", "warned"), [("info", False), ("off", True)])
def test_automatic_maintenance_that_nothing_will_end_is_told_at_the_start(
    make: Make, disk: SimpleNamespace, caplog: pytest.LogCaptureFixture, exit: str, warned: bool
) -> None:
    disk.percent = 99
    assert origin(make()) == "automatic"
    caplog.clear()
    assert origin(make(automatic_maintenance_exit=exit)) == "automatic"
    assert ("edge-worker maintenance off" in caplog.text) is warned


def test_four_heartbeats_are_sent_at_least_in_the_time_after_which_the_policy_stops_jobs(make: Make) -> None:
    limit = 100.0
    interval = make(disconnect_policy=f"stop-after {limit:g}s", heartbeat_interval=3600).pace().heartbeat_interval
    assert 4 * jittered(interval, 1.0) <= limit
    assert make(disconnect_policy=f"stop-after {limit:g}s", heartbeat_interval=7).pace().heartbeat_interval == 7
    assert make(heartbeat_interval=3600).pace().heartbeat_interval == 3600
