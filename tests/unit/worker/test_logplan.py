"""When a log's next bytes are sent, and what has become of its file."""

from __future__ import annotations

import pytest
from edge_worker.logplan import FIRST, MOST_REQUESTS, SMALLEST, begins_as_before, due_in, fitting, kept


@pytest.mark.parametrize(
    ("pending", "since", "waiting", "expected"),
    [
        (0, 99.0, 0, None),
        (1, 99.0, 0, 0.0),
        (1, 0.25, 0, 0.75),
        (1, 0.25, int(MOST_REQUESTS), 0.75),
        (1, 0.25, int(4 * MOST_REQUESTS), 3.75),
        (1000, 0.0, 10_000, 0.0),
    ],
)
def test_first_bytes_and_whole_chunks_go_at_once_and_others_by_the_number_of_logs(
    pending: int, since: float, waiting: int, expected: float | None
) -> None:
    assert due_in(pending, 1000, since, 1.0, waiting) == expected


@pytest.mark.parametrize("waiting", [50, 500])
def test_all_logs_together_make_no_more_requests_than_allowed(waiting: int) -> None:
    pause = due_in(1, 1000, 0.0, 0.1, waiting)
    assert pause is not None
    assert waiting / pause <= MOST_REQUESTS


@pytest.mark.parametrize(
    ("known", "size", "same", "expected"),
    [(100, 100, True, None), (100, 150, True, None), (100, 40, True, 40), (100, 0, False, 0), (100, 150, False, 0)],
)
def test_what_is_left_of_a_file(known: int, size: int, same: bool, expected: int | None) -> None:
    assert kept(known, size, same) == expected


@pytest.mark.parametrize(
    ("known", "head", "expected"),
    [
        (b"", b"", True),
        (b"", b"ab", True),
        (b"ab", b"abc", True),
        (b"abc", b"ab", True),
        (b"abc", b"", False),
        (b"abc", b"abd", False),
    ],
)
def test_a_file_that_was_emptied_or_begins_otherwise_is_another_one(known: bytes, head: bytes, expected: bool) -> None:
    assert begins_as_before(known, head) is expected


@pytest.mark.parametrize(
    ("sent", "took", "expected"),
    [(4096, 0.1, 8192), (4095, 0.1, 4096), (4096, 2.0, 4096), (4096, 9.0, SMALLEST), (4096, None, SMALLEST)],
)
def test_a_request_is_as_large_as_the_network_carries_it(sent: int, took: float | None, expected: int) -> None:
    assert fitting(4096, sent, took) == expected


@pytest.mark.parametrize("speed", [1_000, 20_000, 1_000_000, 10**9])
def test_on_any_network_requests_are_answered_after_a_few_failures(speed: int) -> None:
    size, failures = FIRST, 0
    for _ in range(100):
        took = size / speed
        failures += took > 20
        size = fitting(size, size, took if took <= 20 else None)
    assert failures <= 4
    assert size == SMALLEST or 0.5 <= size / speed <= 4 or size > FIRST
