"""``--transport auto``: the channel where there can be one, else v1, and back again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Daemon, Start, finished, workload
from fake_server import CUT, Answer, Call, FakeCentral, refusal
from test_channel import connected

pytestmark = pytest.mark.parametrize("transport", ["auto"])


def transport_of(daemon: Daemon) -> Any:
    return daemon.status()["transport"]


def polls(central: FakeCentral) -> bool:
    return any("/fetch/" in call.path for call in central.calls)


def test_channel_is_preferred(central: FakeCentral, start: Start) -> None:
    daemon = start()
    job = central.offer(workload("log(b'x')"))
    central.wait_for(finished(job))
    assert transport_of(daemon) == "channel"
    assert not polls(central)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404),
        Answer(426),
        Answer(403),
        Answer(401),
        Answer(200, raw=b"<html>"),
        Answer(302, headers={"Location": "/"}),
    ],
    ids=lambda answer: str(answer.status),
)
def test_refused_upgrade_means_polling_until_it_is_not_refused(
    central: FakeCentral, start: Start, tmp_path: Path, answer: Answer
) -> None:
    central.refuse_upgrade = lambda call: answer
    go = tmp_path / "go"
    daemon = start()
    job = central.offer(workload(f"log(b'a'); wait_for_file({str(go)!r}); log(b'b')"))
    central.wait_for(lambda: bytes(job.log) == b"a")
    assert transport_of(daemon) == "polling"
    assert central.channels == []
    central.refuse_upgrade = lambda call: None
    connected(central)
    go.touch()
    central.wait_for(finished(job))
    hello = central.channels[-1].hello
    assert hello is not None
    assert hello["jobs"] == [{"id": job.id, "claim": 1, "slots": 1}]
    assert hello["session"] == central.reports[0]["session"]
    assert transport_of(daemon) == "channel"
    other = central.offer(workload("pass"))
    central.wait_for(finished(other))
    assert (bytes(job.log), other.state) == (b"ab", "success")
    central.calls.clear()
    beat = len(central.reports)
    central.wait_for(lambda: len(central.reports) > beat + 2)
    assert not polls(central)


@pytest.mark.parametrize(
    "refuse",
    [lambda call: CUT, lambda call: Answer(502)],
    ids=["cut", "502"],
)
def test_channel_that_fails_three_times_means_polling(
    central: FakeCentral, start: Start, refuse: Callable[[Call], Any]
) -> None:
    central.refuse_upgrade = refuse
    start()
    assert len(central.upgrades) == 3
    central.wait_for(lambda: polls(central))
    central.refuse_upgrade = lambda call: None
    connected(central)


def test_channel_that_opens_and_never_lasts_means_polling(central: FakeCentral, start: Start) -> None:
    def break_it(call: Call) -> object | None:
        return CUT if call.headers.get("x-channel") == "heartbeat" else None

    central.faults.append(break_it)
    start(channel_retry=4)
    central.wait_for(lambda: polls(central))
    assert len(central.channels) == 3
    central.faults.clear()
    connected(central, after=central.channels[-1])


def test_polling_worker_stays_when_the_channel_refuses_it(central: FakeCentral, start: Start) -> None:
    central.refuse_upgrade = lambda call: Answer(404)
    daemon = start()
    central.faults.append(
        lambda call: refusal(400, "VersionRefused") if call.headers.get("x-channel") == "hello" else None
    )
    central.refuse_upgrade = lambda call: None
    central.wait_for(lambda: len(central.upgrades) > 3)
    job = central.offer(workload("pass"))
    central.wait_for(finished(job))
    assert transport_of(daemon) == "polling"
    assert "WARNING" not in daemon.said


def test_token_that_the_upgrade_refuses_ends_the_start(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("ewt_other.x")
    daemon = start(registered=False)
    assert daemon.process.wait(20) == 3
    assert "Registration as 'site-1' was refused" in daemon.said
    assert not [call for call in central.calls if "/v1/worker/" in call.path]


def test_server_that_is_down_is_waited_for_and_gets_a_channel(central: FakeCentral, start: Start) -> None:
    central.down = True
    start(registered=False, channel_retry=60)
    central.wait_for(lambda: len(central.upgrades) >= 5)
    assert [call for call in central.calls if "/v1/worker/" in call.path]
    central.refuse_upgrade = lambda call: None
    central.down = False
    central.wait_for(lambda: central.registered)
