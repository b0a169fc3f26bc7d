"""What a user's facts function cannot do to the daemon: its process, from the daemon's side."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from edge_worker import facts
from edge_worker.facts import UserFacts
from edge_worker.faults import BadSetting

Make = Callable[..., UserFacts]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Write a module with the text and have its ``read`` called; its file ``calls`` has a line of each call's pid."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    begun: list[UserFacts] = []

    def begin(text: str) -> UserFacts:
        note = (
            f"import os, sys, time\ndef note():\n    print(os.getpid(), file=open({str(tmp_path / 'calls')!r}, 'a'))\n"
        )
        (tmp_path / "site_facts.py").write_text(f"{note}{text}\n")
        begun.append(UserFacts("site_facts:read"))
        begun[-1].ready()
        return begun[-1]

    yield begin
    for users in begun:
        users.close()


def calls(tmp_path: Path) -> list[int]:
    """The process of each call."""
    return [int(line) for line in (tmp_path / "calls").read_text().split()] if (tmp_path / "calls").exists() else []


def ask(users: UserFacts, until: Callable[[], bool]) -> None:
    """Ask again and again until it is true."""

    async def asking() -> None:
        task = asyncio.create_task(users.run(lambda: 0.02, lambda: None))
        async with asyncio.timeout(20):
            while not until() and not task.done():
                await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel()
        users.close()

    asyncio.run(asking())


def latest(users: UserFacts) -> dict[str, facts.Fact] | None:
    return users.latest(time.monotonic())


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nonsense", "not module:function"),
        ("nowhere.at_all", "cannot import nowhere.at_all: ModuleNotFoundError"),
        ("json:nothing", "AttributeError"),
        ("json:__doc__", "is not a function"),
        ("bad_site:read", "RuntimeError: no sensor"),
        ("bad_exit:read", "has ended, exit code 5"),
    ],
)
def test_a_function_that_is_not_there_is_a_bad_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, words: str
) -> None:
    (tmp_path / "bad_site.py").write_text("raise RuntimeError('no sensor')")
    (tmp_path / "bad_exit.py").write_text("import os; os._exit(5)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(BadSetting, match=words):
        UserFacts(path).ready()


def test_both_ways_to_name_a_function() -> None:
    for path in ("os.path:abspath", "os.path.abspath"):
        users = UserFacts(path)
        users.ready()
        users.close()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('belt')", "it failed: ValueError: belt"),
        ("sys.exit('no more')", "it failed: SystemExit: no more"),
        ("return 7", "it returned int instead of a dict"),
        ("return {'x': None}", "'x' (NoneType) is no text"),
        ("return {'x': 'y' * 10**7}", "it returned more than 256 KiB"),
        ("os._exit(7)", "its process has ended, exit code 7"),
        ("time.sleep(600)", "it has not returned within 0.2 s"),
        ("sum(range(10**12))", "it has not returned within 0.2 s"),
    ],
)
def test_a_function_that_fails_is_told_once_and_asked_again(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, body: str, words: str
) -> None:
    monkeypatch.setattr(facts, "WITHIN", 0.2 if "0.2 s" in words else 5.0)
    users = make(f"def read():\n    note()\n    {body}")
    ask(users, lambda: len(calls(tmp_path)) > 2)
    assert latest(users) is None
    (said,) = warnings(caplog)
    assert words in said


def test_a_process_that_was_too_slow_is_gone_and_what_it_started_and_a_new_one_is_heard(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "WITHIN", 1.0)
    went = tmp_path / "went"
    users = make(
        f"import subprocess\ndef read():\n    note()\n    if os.path.exists({str(went)!r}): return {{'n': 1}}\n"
        f"    open({str(went)!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid))\n    time.sleep(600)"
    )
    ask(users, lambda: latest(users) == {"n": 1})
    assert len(set(calls(tmp_path)[:2])) == 2
    for pid in (calls(tmp_path)[0], int(went.read_text())):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_one_process_serves_all_calls_and_what_is_printed_disturbs_nothing(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    users = make(
        "def read():\n    note()\n    print('{\"told\": {}}')\n    os.system('echo from a shell')\n"
        "    print('x' * 5000, file=sys.stderr)\n    return {'read': sys.stdin.read()}"
    )
    ask(users, lambda: len(calls(tmp_path)) > 2)
    assert latest(users) == {"read": ""}
    assert len(set(calls(tmp_path))) == 1
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert "facts function: from a shell" in said
    assert max(map(len, said)) < 1100
    assert warnings(caplog) == []


def test_its_environment_has_nothing_of_the_daemons_own(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGE_WORKER_TOKEN_FILE", "OTEL_EXPORTER_OTLP_HEADERS"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("SITE", "plant")
    users = make(
        "def read():\n    return {'site': os.environ['SITE'], 'seen': ' '.join(k for k in os.environ if"
        " k.startswith(('EDGE_WORKER_', 'OTEL_EXPORTER_'))),"
        " 'loaded': 'edge_worker' in sys.modules or 'pydantic' in sys.modules}"
    )
    ask(users, lambda: latest(users) is not None)
    assert latest(users) == {"site": "plant", "seen": "", "loaded": False}


def test_the_last_good_facts_are_kept_for_a_while_and_then_dropped(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "WITHIN", 0.5)
    users = make("told = [{'n': 1}]\ndef read():\n    note()\n    return told.pop()")
    ask(users, lambda: len(calls(tmp_path)) > 1)
    now = time.monotonic()
    assert users.latest(now) == {"n": 1}
    assert users.latest(now + 1) is None


def test_an_async_function_is_awaited(make: Make) -> None:
    users = make("import asyncio\nasync def read():\n    await asyncio.sleep(0)\n    return {'n': 2}")
    ask(users, lambda: latest(users) == {"n": 2})
