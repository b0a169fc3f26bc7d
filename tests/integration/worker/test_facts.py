"""A user's facts, and the automatic maintenance that follows from them, through real daemons."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Daemon, Start, finished, workload
from fake_server import FakeCentral

pytestmark = pytest.mark.parametrize("transport", ["polling"])

Sensor = Callable[..., Daemon]

READ = """
import json, pathlib
async def read():
    return json.loads(pathlib.Path({path!r}).read_text())
"""


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., None]:
    """Write what the user's function returns."""

    def tell(**facts: Any) -> None:
        new = tmp_path / "told.new"
        new.write_text(json.dumps(facts))
        new.replace(tmp_path / "told.json")

    tell(status="info", belt=1)
    return tell


@pytest.fixture
def sensor(start: Start, tmp_path: Path, told: Callable[..., None]) -> Sensor:
    """Start a daemon whose facts function reads a file, and which heeds it."""
    (tmp_path / "site_facts.py").write_text(READ.format(path=str(tmp_path / "told.json")))

    def begin(**options: Any) -> Daemon:
        rules = {"automatic_maintenance_on": "error", "automatic_maintenance_exit": "Info", **options}
        env = {"PYTHONPATH": str(tmp_path)}
        return start(env=env, facts_function="site_facts.read", telemetry_interval=0.1, **rules)

    return begin


def state(central: FakeCentral) -> str:
    return str(central.last()["state"])


def test_maintenance_begins_and_ends_with_the_users_status(
    central: FakeCentral, sensor: Sensor, told: Callable[..., None]
) -> None:
    sensor()
    central.wait_for(lambda: central.last()["sysinfo"].get("belt") == 1)
    told(status="error", status_text="the belt is torn", belt=0)
    central.wait_for(lambda: state(central) == "maintenance mode")
    assert (central.last()["maintenance_comments"], central.last()["maintenance_origin"]) == (
        "the belt is torn",
        "automatic",
    )
    assert central.last()["sysinfo"]["status"] == 40
    told(status="warning", belt=0.5)
    central.wait_for(lambda: central.last()["sysinfo"]["status"] == 30)
    assert state(central) == "maintenance mode"
    told(status="info", belt=1)
    central.wait_for(lambda: state(central) == "idle")
    job = central.offer(workload("pass"))
    central.wait_for(finished(job))


def test_full_disk_is_an_error_with_its_figures(central: FakeCentral, start: Start) -> None:
    daemon = start(disk_error=0.001, automatic_maintenance_on="error")
    central.wait_for(lambda: state(central) == "maintenance mode")
    comment = central.last()["maintenance_comments"]
    assert comment.startswith(f"Disk of {daemon.state_dir} at ")
    assert comment.endswith(" %")


def test_automatic_maintenance_is_remembered_over_kill_9_and_can_still_end(
    central: FakeCentral, sensor: Sensor, told: Callable[..., None]
) -> None:
    told(status=40, status_text="torn")
    daemon = sensor()
    central.wait_for(lambda: state(central) == "maintenance mode")
    daemon.process.kill()
    daemon.process.wait(10)
    told(status=30)
    sensor()
    # Not before the function has spoken again, and not for a warning.
    central.wait_for(lambda: central.last()["sysinfo"]["status"] == 30)
    assert (state(central), central.last()["maintenance_origin"]) == ("maintenance mode", "automatic")
    told(status=20)
    central.wait_for(lambda: state(central) == "idle")


def test_an_administrator_who_ends_it_is_respected_until_health_was_good_once(
    central: FakeCentral, sensor: Sensor, told: Callable[..., None]
) -> None:
    told(status=40, status_text="torn")
    daemon = sensor()
    central.wait_for(lambda: state(central) == "maintenance mode")
    central.state = "idle"
    central.wait_for(lambda: state(central) == "idle")
    central.state = None
    seen = len(central.reports)
    central.wait_for(lambda: len(central.reports) > seen + 4)
    daemon.process.kill()
    daemon.process.wait(10)
    sensor()
    central.wait_for(lambda: central.last()["sysinfo"]["status"] == 40)
    seen = len(central.reports)
    central.wait_for(lambda: len(central.reports) > seen + 2)
    assert {report["state"] for report in central.reports[seen:]} == {"idle"}
    told(status=20)
    central.wait_for(lambda: central.last()["sysinfo"]["status"] == 20)
    told(status=40)
    central.wait_for(lambda: state(central) == "maintenance mode")


@pytest.mark.parametrize("who", ["admin", "local"])
def test_one_that_a_person_has_taken_over_does_not_end_by_itself(
    central: FakeCentral, sensor: Sensor, told: Callable[..., None], who: str
) -> None:
    told(status=40, status_text="torn")
    daemon = sensor()
    central.wait_for(lambda: state(central) == "maintenance mode")
    if who == "admin":
        central.origin = "admin"
    else:
        assert daemon.command("maintenance", "on", "--comment", "I look at it").returncode == 0
    central.wait_for(lambda: central.last().get("maintenance_origin") == (None if who == "admin" else "local"))
    told(status=20)
    central.wait_for(lambda: central.last()["sysinfo"]["status"] == 20)
    seen = len(central.reports)
    central.wait_for(lambda: len(central.reports) > seen + 2)
    assert {report["state"] for report in central.reports[seen:]} == {"maintenance mode"}


@pytest.mark.parametrize(
    "body", ["threading.Event().wait()", "sum(range(10**12))", "os._exit(7)"], ids=["waits", "holds the GIL", "exits"]
)
def test_a_function_that_hangs_or_exits_delays_no_heartbeat_and_no_job(
    central: FakeCentral, start: Start, tmp_path: Path, body: str
) -> None:
    (tmp_path / "site_facts.py").write_text(f"import os, threading\ndef read():\n    {body}\n")
    start(env={"PYTHONPATH": str(tmp_path)}, facts_function="site_facts:read", telemetry_interval=0.1)
    seen = len(central.calls)
    job = central.offer(workload("pass"))
    central.wait_for(finished(job))
    central.wait_for(lambda: len(central.reports) > 8)
    beats = [call.time for call in central.calls[seen:] if "/v1/worker/" in call.path]
    assert max(b - a for a, b in itertools.pairwise(beats)) < 1.5
