"""The fault suite's kills: each meets somebody, or says that it did not."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from tests.faults.catalogue import NotInjected, kill_one


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_kill_waits_for_the_next_who_is_there(sleeper: subprocess.Popen[bytes]) -> None:
    looks = iter([[], [], [("late", psutil.Process(sleeper.pid))]])
    assert kill_one(lambda: next(looks), random.Random(1)) == "late"
    assert sleeper.wait() == -signal.SIGKILL


def test_a_kill_that_comes_too_late_for_one_meets_another(sleeper: subprocess.Popen[bytes]) -> None:
    with subprocess.Popen(["true"]) as ended:
        gone = psutil.Process(ended.pid)
    looks = iter([[("gone", gone)], [("there", psutil.Process(sleeper.pid))]])
    assert kill_one(lambda: next(looks), random.Random(1)) == "there"
    assert sleeper.wait() == -signal.SIGKILL


def test_a_kill_that_finds_nobody_was_not_injected() -> None:
    with pytest.raises(NotInjected, match="somebody to kill"):
        kill_one(list, random.Random(1), within=0)
