"""What of a user's function can be reported, and what it cannot do to the daemon."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from edge_worker import facts
from edge_worker.facts import MOST, UserFacts, load, usable
from edge_worker.faults import BadSetting

from edge_otel.wire import MAX_FACTS, OWN_FACTS, WorkerReport


class Angry(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_text_numbers_and_times_are_taken():
    told = {"a": "b", "n": 1, "f": 0.5, "t": datetime(2026, 1, 1, tzinfo=UTC), "status": "Warning"}
    assert usable(told) == ({**told, "t": "2026-01-01T00:00:00+00:00"}, [])


@pytest.mark.parametrize(
    "told",
    [
        {"n": float("nan")},
        {"n": float("inf")},
        {"n": 2**2000},
        {"n": None},
        {"n": [1]},
        {"n": "x" * 2000},
        {"n": "\ud800"},
        {"x" * 65: 1},
        {"": 1},
        {7: 1},
        {"concurrency": 100},
        {"cpu_percent": 1.0},
    ],
    ids=str,
)
def test_what_cannot_be_reported_is_left_out_and_told_and_the_rest_is_taken(told):
    found, wrong = usable({**told, "good": 1})
    assert found == {"good": 1}
    assert len(wrong) == 1


@pytest.mark.parametrize("told", [None, [], "text", 7, {1, 2}])
def test_what_is_no_dict_is_told(told):
    assert usable(told) == ({}, [f"it returned {type(told).__name__} instead of a dict"])


@pytest.mark.parametrize("value", [1, None], ids=["good", "bad"])
def test_ten_thousand_facts_are_cut_to_what_a_report_may_hold(value):
    found, wrong = usable({f"f{number}": value for number in range(10_000)})
    assert len(found) <= MOST
    assert "of its 10000 facts" in wrong[-1]
    assert len(found) + len(OWN_FACTS) <= MAX_FACTS
    WorkerReport.model_validate({"state": "idle", "sysinfo": {**found, **dict.fromkeys(OWN_FACTS, 1)}})


def test_many_long_texts_are_cut_for_heartbeats_stay_small():
    found, wrong = usable({f"f{number}": "x" * 1000 for number in range(40)})
    assert 5 < len(found) < 9
    assert "8192 characters" in wrong[-1]


def test_a_status_that_is_no_level_is_told():
    assert "no level" in usable({"status": "purple"})[1][0]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nonsense", "not module:function"),
        ("nowhere.at_all", "cannot import nowhere.at_all: ModuleNotFoundError"),
        ("json:nothing", "AttributeError"),
        ("json:__doc__", "is not a function"),
        ("bad_site:read", "RuntimeError: no sensor"),
    ],
)
def test_a_function_that_is_not_there_is_a_bad_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, words: str
):
    (tmp_path / "bad_site.py").write_text("raise RuntimeError('no sensor')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadSetting, match=words):
        load(path)


def test_both_ways_to_name_a_function():
    assert load("os.path:abspath") is load("os.path.abspath")


def raises() -> Any:
    raise Angry


def leaves() -> Any:
    sys.exit("no more")


async def never() -> Any:
    await asyncio.Event().wait()


def asked(
    function: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, until: Callable[[UserFacts], bool]
) -> UserFacts:
    """Return it after it was asked for as long as ``until`` is not true."""
    monkeypatch.setattr(sys.modules[__name__], "site_facts", function, raising=False)
    users = UserFacts(f"{__name__}:site_facts")

    async def ask() -> None:
        asking = asyncio.create_task(users.run(lambda: 0.02, lambda: None))
        async with asyncio.timeout(20):
            while not until(users) and not asking.done():
                await asyncio.sleep(0.01)
        assert not asking.done()
        asking.cancel()

    asyncio.run(ask())
    return users


@pytest.mark.parametrize("function", [raises, leaves, never, lambda: 7, lambda: {"x": None}])
def test_a_function_that_fails_is_told_once_and_asked_again(
    function: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(facts, "WITHIN", 0.05)
    calls: list[float] = []

    def counted() -> Any:
        calls.append(time.monotonic())
        return function()

    users = asked(counted, monkeypatch, lambda users: len(calls) > 3)
    assert users.latest(time.monotonic()) is None
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


def test_a_function_that_hangs_is_told_and_not_called_again_beside_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(facts, "WITHIN", 0.05)
    go = threading.Event()
    calls: list[str] = []

    def hangs() -> dict[str, int]:
        calls.append(threading.current_thread().name)
        go.wait(20)
        return {"n": 1}

    asked(hangs, monkeypatch, lambda users: "has not returned" in caplog.text)
    go.set()
    assert calls == ["facts"]


def test_the_last_good_facts_are_kept_for_a_while_and_then_dropped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(facts, "WITHIN", 0.2)
    answers = iter([{"n": 1}])
    calls: list[int] = []

    def once() -> dict[str, int]:
        calls.append(1)
        return next(answers)

    users = asked(once, monkeypatch, lambda users: len(calls) > 1)
    now = time.monotonic()
    assert users.latest(now) == {"n": 1}
    assert users.latest(now + 1) is None


def test_an_async_function_is_awaited(monkeypatch: pytest.MonkeyPatch):
    async def read() -> dict[str, int]:
        await asyncio.sleep(0)
        return {"n": 2}

    users = asked(read, monkeypatch, lambda users: users.latest(time.monotonic()) is not None)
    assert users.latest(time.monotonic()) == {"n": 2}
