"""Exit codes in words."""

from __future__ import annotations

import signal

import pytest
from edge_worker.exits import in_words


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-signal.SIGKILL, ("signal 9, SIGKILL", "memory")),
        (-signal.SIGSEGV, ("SIGSEGV", "PYTHONFAULTHANDLER")),
        (-signal.SIGUSR1, ("SIGUSR1",)),
        (-99, ("signal 99",)),
        (126, ("code 126", "may not be executed")),
        (127, ("code 127", "not found")),
        (137, ("code 137", "SIGKILL", "memory")),
        (143, ("code 143", "SIGTERM")),
    ],
)
def test_code_is_explained(code: int, words: tuple[str, ...]) -> None:
    said = in_words(code)
    assert all(word in said for word in words), said


@pytest.mark.parametrize("code", [0, 1, 3, 128, 250, 255])
def test_code_that_means_nothing_in_general_is_only_told(code: int) -> None:
    assert in_words(code) == f"ended with code {code}"
