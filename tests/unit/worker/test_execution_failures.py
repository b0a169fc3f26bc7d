"""What a failed call to the Execution API means to a task's supervisor."""

from __future__ import annotations

import pytest
from edge_worker.endurance import Meaning, is_answer, read_failure


@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize(
    ("status", "said", "meaning"),
    [
        (None, None, Meaning.AGAIN),
        (302, None, Meaning.AGAIN),
        (404, None, Meaning.AGAIN),
        (403, None, Meaning.AGAIN),
        (408, "Timeout", Meaning.AGAIN),
        (429, "Slow down", Meaning.AGAIN),
        (500, "Database", Meaning.AGAIN),
        (502, None, Meaning.AGAIN),
        (503, "Away", Meaning.AGAIN),
        (401, "Missing auth token", Meaning.EXPIRED),
        (403, "Invalid auth token", Meaning.EXPIRED),
        (404, "Not found", Meaning.WORD),
        (409, "invalid_state", Meaning.WORD),
        (410, "Gone", Meaning.WORD),
        (422, "Malformed", Meaning.WORD),
    ],
)
def test_only_the_servers_own_word_ends_the_attempts(status, said, final, meaning):
    assert read_failure(status, said, final) is meaning


def test_a_task_may_be_denied_a_variable_but_never_its_end():
    assert read_failure(403, "Task does not have access", final=False) is Meaning.WORD
    assert read_failure(403, "Task does not have access", final=True) is Meaning.AGAIN


@pytest.mark.parametrize(
    ("status", "kind", "empty", "final", "answers"),
    [
        (200, "application/json", False, False, True),
        (201, "application/json; charset=utf-8", False, False, True),
        (204, "", True, False, True),
        (204, "application/json", True, True, True),
        (200, "", True, True, True),
        (200, "", True, False, False),
        (200, "", False, True, False),
        (200, "text/html", True, True, False),
        (200, "text/html; charset=utf-8", False, False, False),
    ],
)
def test_a_success_is_an_answer_where_it_is_one_that_the_execution_api_gives(status, kind, empty, final, answers):
    assert is_answer(status, kind, empty=empty, final=final) is answers
