"""What a service manager hears of a real daemon, by a real datagram socket."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from conftest import Start, workload
from fake_server import FakeCentral

pytestmark = pytest.mark.parametrize("transport", ["channel"])


class Manager:
    """The far end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while (said := self._socket.recv(4096)) != b"end":
            self.heard.extend(said.decode().splitlines())

    def pings(self) -> int:
        return self.heard.count("WATCHDOG=1")

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.sendto(b"end", self._socket.getsockname())
        self._thread.join()
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    # A path may have 107 bytes.
    where = os.path.relpath(tmp_path / "notify")
    found = Manager(f"@{uuid4()}" if request.param == "abstract" else where)
    yield found
    found.close()


def env(manager: Manager, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "300000", **more}


def test_ready_state_watchdog_and_stop_are_told(central: FakeCentral, start: Start, manager: Manager) -> None:
    daemon = start(env=env(manager))
    central.wait_for(lambda: "STATUS=idle, 0 jobs, channel" in manager.heard)
    assert manager.heard.index("READY=1") == 0
    seen = manager.pings()
    central.wait_for(lambda: manager.pings() > seen + 2)
    assert "STOPPING=1" not in manager.heard
    daemon.process.terminate()
    assert daemon.process.wait(20) == 0
    central.wait_for(lambda: manager.heard[-1] == "STOPPING=1")


@pytest.mark.parametrize("manager", ["abstract"], indirect=True)
def test_server_that_is_away_is_told_and_the_watchdog_goes_on(
    central: FakeCentral, start: Start, manager: Manager
) -> None:
    central.down = True
    start(env=env(manager), registered=False)
    central.wait_for(lambda: "STATUS=idle, 0 jobs, server not reached" in manager.heard)
    seen = manager.pings()
    central.wait_for(lambda: manager.pings() > seen + 2)


@pytest.mark.parametrize("manager", ["abstract"], indirect=True)
def test_heartbeat_that_hangs_beyond_its_bound_is_not_alive(
    central: FakeCentral, start: Start, manager: Manager, tmp_path: Path
) -> None:
    hanging = tmp_path / "hanging"
    hanging.mkdir()
    # Every real call has timeouts, and the bound is minutes.
    (hanging / "sitecustomize.py").write_text(
        "import asyncio\n"
        "from edge_worker import loop, polling\n"
        "loop.BEAT_WITHIN = 0.5\n"
        "polling.Polling.beat = lambda *_: asyncio.sleep(3600)\n"
    )
    daemon = start(env=env(manager, PYTHONPATH=str(hanging)), transport="polling")
    central.wait_for(lambda: "stuck: heartbeat" in daemon.said)
    checked = daemon.command("status", "--check", "live")
    assert (checked.returncode, "heartbeat: sending a heartbeat" in checked.stdout) == (1, True)
    seen = manager.pings()
    # The manager goes on to be told other things.
    daemon.command("drain")
    central.wait_for(lambda: any("leaving: asked to" in line for line in manager.heard))
    assert manager.pings() == seen


@pytest.mark.parametrize("manager", ["abstract"], indirect=True)
@pytest.mark.parametrize("other", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}], ids=["its", "none"])
def test_watchdog_of_another_process_is_not_ours(
    central: FakeCentral, start: Start, manager: Manager, other: dict[str, str]
) -> None:
    start(env=env(manager, **other))
    central.wait_for(lambda: "READY=1" in manager.heard)
    seen = len(central.reports)
    central.wait_for(lambda: len(central.reports) > seen + 5)
    assert manager.pings() == 1


@pytest.mark.parametrize("manager", ["abstract"], indirect=True)
def test_tasks_do_not_inherit_the_line_to_the_manager(central: FakeCentral, start: Start, manager: Manager) -> None:
    start(env=env(manager, CREDENTIALS_DIRECTORY="/run/credentials/x"))
    names = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "CREDENTIALS_DIRECTORY", "PATH")
    job = central.offer(workload(f"log(json.dumps([n for n in {names!r} if n in os.environ]).encode())"))
    central.wait_for(lambda: job.log_complete)
    assert bytes(job.log) == b'["PATH"]'
