"""The channel: offers, confirmations, wishes, cancellation, and connections that end at every point."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from conftest import Start, finished, workload
from fake_channel import FakeChannel
from fake_server import CUT, CUT_AFTER, Answer, Call, FakeCentral, FakeJob, refusal
from test_jobs import FOREVER, gone, running

pytestmark = pytest.mark.parametrize("transport", ["channel"])

STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN); log(b'begun\\n'); wait_for_file('/nonexistent')"


def connected(central: FakeCentral, after: FakeChannel | None = None) -> FakeChannel:
    """Return the open channel, a newer one than ``after``, once it is there."""

    def newer() -> FakeChannel | None:
        return central.channel if central.channel is not after else None

    found = central.wait_for(newer)
    assert isinstance(found, FakeChannel)
    return found


def kinds(central: FakeCentral) -> list[str]:
    """The channel's messages from the worker, in order."""
    return [call.headers["x-channel"] for call in central.calls if "x-channel" in call.headers]


def messages(central: FakeCentral, kind: str) -> list[dict[str, Any]]:
    return [call.json for call in central.calls if call.headers.get("x-channel") == kind]


def beats(central: FakeCentral, count: int = 2) -> None:
    """Wait for more heartbeats, so that whatever was to happen before them has happened."""
    seen = len(central.reports)
    central.wait_for(lambda: len(central.reports) >= seen + count)


def wish(central: FakeCentral, seq: int, **changes: Any) -> None:
    channel = connected(central)
    reply = central.worker(Call("PATCH", "", {}, json.dumps(central.last()).encode(), ("", 0), 0)).body
    channel.send(type="settings", seq=seq, **{**reply, **changes})


def test_job_is_offered_accepted_confirmed_and_ended_in_its_trace(central: FakeCentral, start: Start) -> None:
    start()
    trace = "0af7651916cd43dd8448eb211c80319c"
    parent = f"00-{trace}-b7ad6b7169203331-01"
    job = central.offer(workload("log(b'x')"), carrier={"traceparent": parent, "tracestate": "a=b"})
    central.wait_for(finished(job))
    assert kinds(central)[0] == "hello"
    about = [call.json for call in central.calls if call.headers.get("x-channel") in ("accept", "job_state")]
    assert [message["type"] for message in about] == ["accept", "job_state"]
    assert {message["traceparent"][3:35] for message in about} == {trace}
    assert parent not in {message["traceparent"] for message in about}
    assert {message["tracestate"] for message in about} == {"a=b"}
    roots = [message["traceparent"] for message in messages(central, "heartbeat")]
    assert len(set(roots)) == len(roots)
    assert all(trace not in root for root in roots)
    assert not [
        call
        for call in central.calls
        if "/fetch/" in call.path or ("/v1/" in call.path and not call.headers.get("x-channel"))
    ]
    assert "permessage-deflate" not in central.upgrades[0].headers.get("sec-websocket-extensions", "")


@pytest.mark.parametrize("how", [CUT, CUT_AFTER], ids=["lost", "answer_lost"])
@pytest.mark.parametrize("kind", ["hello", "heartbeat", "accept", "job_state"])
def test_connection_cut_at_a_message_of_the_worker_loses_and_doubles_nothing(
    central: FakeCentral, start: Start, tmp_path: Path, kind: str, how: object
) -> None:
    mark = tmp_path / "ran"
    cut: list[Call] = []

    def fault(call: Call) -> object | None:
        if call.headers.get("x-channel") == kind and len(cut) < 2:
            cut.append(call)
            return how
        return None

    central.faults.append(fault)
    daemon = start(registered=False)
    job = central.offer(workload(f"Path({str(mark)!r}).open('a').write('once '); log(b'all of it')"))
    central.wait_for(finished(job))
    central.wait_for(lambda: daemon.folders() == [] and len(cut) == 2)
    assert (job.state, mark.read_text(), bytes(job.log)) == ("success", "once ", b"all of it")
    assert {message["session"] for message in messages(central, "hello")} == {central.last()["session"]}


@pytest.mark.parametrize("kind", ["welcome", "job", "confirmed", "state_ack"])
def test_connection_cut_after_a_message_of_the_server_loses_and_doubles_nothing(
    central: FakeCentral, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    mark = tmp_path / "ran"
    cut: list[str] = []
    send = FakeChannel.send

    def send_and_cut(channel: FakeChannel, **message: Any) -> None:
        send(channel, **message)
        if message["type"] == kind and len(cut) < 2:
            cut.append(kind)
            channel.cut()

    monkeypatch.setattr(FakeChannel, "send", send_and_cut)
    daemon = start(registered=False)
    jobs = [
        central.offer(workload(f"Path({str(mark)!r}).open('a').write('once '); log(b'all of it')")) for _ in range(2)
    ]
    central.wait_for(lambda: all(finished(job)() for job in jobs))
    central.wait_for(lambda: daemon.folders() == [] and len(cut) == 2)
    assert mark.read_text() == "once once "
    assert {bytes(job.log) for job in jobs} == {b"all of it"}


def test_reconnected_worker_tells_its_state_and_jobs_in_the_same_session(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    daemon = start()
    first = connected(central)
    job = central.offer(workload(f"wait_for_file({str(go)!r})"), concurrency_slots=3)
    running(central, daemon)
    first.cut()
    connected(central, after=first)
    old, new = messages(central, "hello")
    assert (old["state"], new["state"]) == ("starting", "running")
    assert new["session"] == old["session"]
    assert new["jobs"] == [{"id": job.id, "claim": 1, "slots": 3}]
    go.touch()
    central.wait_for(finished(job))
    central.wait_for(lambda: central.last()["jobs"] == [])


@pytest.mark.parametrize(("code", "says_bye"), [(1012, True), (1012, False), (1001, False)])
def test_a_server_that_goes_in_order_is_no_failure(
    central: FakeCentral, start: Start, code: int, says_bye: bool
) -> None:
    daemon = start()
    for _ in range(4):
        channel = connected(central)
        if says_bye:
            channel.send(type="bye", reason="a new version", reconnect_after=0.3)
        asked = len(central.upgrades)
        channel.close(code)
        connected(central, after=channel)
        assert len(central.upgrades) == asked + 1
    assert "WARNING" not in daemon.said
    assert ("a new version" in daemon.said) is says_bye


def test_pause_that_a_server_asks_for_at_its_end_is_made(central: FakeCentral, start: Start) -> None:
    start()
    channel = connected(central)
    channel.send(type="bye", reason="a new version", reconnect_after=1.5)
    channel.close(1012)
    ended = central.calls[-1].time
    connected(central, after=channel)
    assert central.upgrades[-1].time - ended >= 1.4


def test_server_that_says_bye_and_stays_is_left(central: FakeCentral, start: Start) -> None:
    start()
    channel = connected(central)
    channel.send(type="bye", reason="a new version")
    connected(central, after=channel)


def test_retry_after_at_the_upgrade_is_honoured(central: FakeCentral, start: Start) -> None:
    def busy(call: Call) -> Answer | None:
        return Answer(503, refusal(503, "Busy").body, {"Retry-After": "2"}) if len(central.upgrades) == 1 else None

    central.refuse_upgrade = busy
    start()
    assert central.upgrades[1].time - central.upgrades[0].time >= 2


def test_server_that_is_gone_is_waited_for_while_jobs_go_on(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    daemon = start()
    job = central.offer(workload(f"log(b'a'); wait_for_file({str(tmp_path / 'go')!r}); log(b'b')"))
    central.wait_for(lambda: bytes(job.log) == b"a")
    central.down = True
    (tmp_path / "go").touch()
    asked = len(central.upgrades)
    central.wait_for(lambda: len(central.upgrades) >= asked + 5)
    assert daemon.exit_code() is None
    assert daemon.status()["transport"] is None
    central.down = False
    central.wait_for(finished(job))
    assert bytes(job.log) == b"ab"
    assert len(messages(central, "accept")) == 1
    assert not [call for call in central.calls if "/v1/" in call.path and "x-channel" not in call.headers]


def test_broken_channel_is_opened_again_after_random_growing_pauses(central: FakeCentral, start: Start) -> None:
    central.settings["heartbeat_interval"] = 60
    start()
    paused = 0.0
    for _ in range(3):
        channel = connected(central)
        # Until it is silent: it notices at once then.
        central.wait_for(lambda: time.monotonic() - central.calls[-1].time > 0.5)
        now = time.monotonic()
        channel.cut()
        connected(central, after=channel)
        paused += central.upgrades[-1].time - now
    # Up to 1, 2 and 4 s: that their sum is this small happens once in 10,000 runs.
    assert paused > 0.15


def test_drain_during_an_outage_ends_with_a_last_word(central: FakeCentral, start: Start) -> None:
    daemon = start()
    beats(central)
    central.down = True
    asked = len(central.upgrades)
    central.wait_for(lambda: len(central.upgrades) > asked)
    daemon.process.terminate()
    central.wait_for(lambda: "draining" in daemon.said)
    central.down = False
    assert daemon.process.wait(20) == 0
    assert central.last()["state"] == "offline"


@pytest.mark.parametrize("kind", ["cancel", "stale"])
def test_cancelled_job_is_killed_and_forgotten(central: FakeCentral, start: Start, kind: str) -> None:
    daemon = start(kill_grace=0.3, concurrency=1)
    job = central.offer(workload(STUBBORN))
    pid = running(central, daemon)
    central.wait_for(lambda: bytes(job.log) == b"begun\n")
    connected(central).send(type=kind, id=job.id, claim=job.offer["claim"] + 1)
    beats(central)
    assert not gone(pid)
    connected(central).send(type=kind, id=job.id, claim=job.offer["claim"])
    central.wait_for(lambda: gone(pid))
    central.wait_for(lambda: daemon.folders() == [])
    other = central.offer(workload("pass"))
    central.wait_for(finished(other))
    assert (job.end["state"], job.end["log_length"]) == ("failed", 6), "how long its log is, is told"
    assert [message["id"] for message in messages(central, "job_state")] == [job.id, other.id]


def test_job_that_is_cancelled_while_it_starts_does_not_stay(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    mark = tmp_path / "pid"
    daemon = start(launch="zygote", kill_grace=0.3)
    channel = connected(central)
    job = central.offer(workload(f"Path({str(mark)!r}).write_text(str(os.getpid())); {FOREVER}"))
    central.wait_for(lambda: job.state == "running")
    channel.send(type="cancel", id=job.id, claim=1)
    central.wait_for(lambda: daemon.folders() == [])
    assert not mark.exists() or gone(int(mark.read_text()))
    assert job.end["state"] == "failed"


def test_replaced_daemon_ends_with_its_jobs_and_never_calls_again(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    daemon = start()
    job = central.offer(workload(f"wait_for_file({str(go)!r}); log(b'x')"))
    running(central, daemon)
    connected(central).refuse(refusal(409, "SessionReplaced", "Another daemon is here."))
    central.wait_for(lambda: "Another daemon is here. Taking no more jobs" in daemon.said)
    upgrades, reports = len(central.upgrades), len(central.reports)
    go.touch()
    assert daemon.process.wait(20) == 4
    assert finished(job)()
    assert (len(central.upgrades), len(central.reports)) == (upgrades, reports)


def test_offers_that_do_not_fit_are_declined_at_once(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    daemon = start(concurrency=2)
    channel = connected(central)

    def offer_anyway(slots: int) -> FakeJob:
        job = FakeJob({**template.offer, "task_instance_id": str(uuid4()), "concurrency_slots": slots})
        central.jobs[job.id] = job
        channel.send(type="job", **job.offer)
        return job

    template = central.offer(workload(f"wait_for_file({str(tmp_path / 'go')!r})"))
    running(central, daemon)
    big = offer_anyway(2)
    central.wait_for(lambda: messages(central, "decline"))
    assert messages(central, "decline")[0]["id"] == big.id
    assert messages(central, "decline")[0]["reason"] == "it needs 2 slots, and 1 are free"
    daemon.command("maintenance", "on")
    small = offer_anyway(1)
    central.wait_for(lambda: len(messages(central, "decline")) == 2)
    daemon.command("maintenance", "off")
    daemon.process.terminate()
    central.wait_for(lambda: central.last()["state"] == "terminating")
    offer_anyway(0)
    central.wait_for(lambda: len(messages(central, "decline")) == 3)
    (tmp_path / "go").touch()
    assert daemon.process.wait(20) == 0
    assert {big.state, small.state} == {"queued"}
    assert len(messages(central, "accept")) == 1


def test_changed_settings_are_obeyed_at_once(central: FakeCentral, start: Start) -> None:
    central.settings["heartbeat_interval"] = 60
    start(concurrency=1)
    beats(central, 1)
    wish(central, messages(central, "heartbeat")[-1]["seq"], concurrency=3, queues=["fast"])
    wish(central, messages(central, "heartbeat")[-1]["seq"], state="maintenance request", maintenance_comments="disks")
    central.wait_for(lambda: central.last()["state"] == "maintenance mode")
    assert central.last()["maintenance_comments"] == "disks"
    wish(central, messages(central, "heartbeat")[-1]["seq"], state="shutdown request")
    central.wait_for(lambda: central.last()["state"] == "offline maintenance")


def test_wish_of_before_a_local_maintenance_does_not_end_it(central: FakeCentral, start: Start) -> None:
    daemon = start()
    beats(central, 1)
    before = messages(central, "heartbeat")[-1]["seq"]
    assert daemon.command("maintenance", "on").returncode == 0
    central.wait_for(lambda: central.last()["state"] == "maintenance mode")
    wish(central, before, state="idle")
    wish(central, 0, state="idle")
    beats(central)
    assert central.last()["state"] == "maintenance mode"
    wish(central, messages(central, "heartbeat")[-1]["seq"], state="maintenance exit")
    central.wait_for(lambda: central.last()["state"] == "idle")


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "tomorrow", "x": 1}',
        "{",
        '"text"',
        '{"type": "job"}',
        '{"type": "confirmed", "id": "x"}',
        "\u0000",
        "null",
    ],
)
def test_messages_that_are_not_understood_change_nothing(central: FakeCentral, start: Start, text: str) -> None:
    daemon = start()
    channel = connected(central)
    channel.send_text(text)
    channel.send(type="error", error="BadInput", detail="what was that?", error_id="e-7")
    job = central.offer(workload("pass"))
    central.wait_for(finished(job))
    assert central.channel is channel
    assert ("malformed" in daemon.said) is ("tomorrow" not in text)
    assert "what was that?" in daemon.said


def test_token_that_was_rotated_while_connected_is_used_at_the_next_connection(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    daemon = start()
    first = connected(central)
    central.token = "ewt_two.secret-of-the-second"
    (tmp_path / "token").write_text(central.token)
    first.refuse(refusal(403, "Forbidden", "Revoked."))
    connected(central, after=first)
    assert "refused" not in daemon.said
    assert "secret-of" not in daemon.said


def test_token_that_is_refused_later_is_tried_again_slowly(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    daemon = start()
    central.token = "ewt_other.x"
    connected(central).refuse(refusal(403, "Forbidden", "Revoked."))
    central.wait_for(lambda: "registration refused: because the test says so" in daemon.said)
    asked = len(central.upgrades)
    assert daemon.command("status").returncode == 0
    assert daemon.exit_code() is None
    assert len(central.upgrades) == asked


def test_silent_server_is_left(central: FakeCentral, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    start()
    first = connected(central)
    monkeypatch.setattr(first, "heed", lambda message: None)
    connected(central, after=first)


def test_channel_only_does_not_poll(central: FakeCentral, start: Start) -> None:
    central.refuse_upgrade = lambda call: Answer(404)
    daemon = start(registered=False)
    central.wait_for(lambda: len(central.upgrades) >= 4)
    assert central.calls == []
    assert "404" in daemon.said
    central.refuse_upgrade = lambda call: None
    connected(central)
