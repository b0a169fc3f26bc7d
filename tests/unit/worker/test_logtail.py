"""The newest lines of the daemon's log, as its reports take them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from edge_worker.logtail import MOST, STRIKES, LogTail

from edge_otel.messages import MAX_MESSAGE, Heartbeat, encode
from edge_otel.wire import MAX_LOG_LINES, MAX_LOG_TEXT, DaemonLog


class Diary:
    """A log of its own with a tail, and reports that are answered or not."""

    def __init__(self, kept: int = MAX_LOG_LINES) -> None:
        self.tail = LogTail(kept)
        self.log = logging.getLogger("edge_worker.under_test")
        self.log.propagate = False
        self.log.setLevel(logging.DEBUG)
        self.log.handlers = [self.tail]

    def say(self, *numbers: int) -> None:
        for number in numbers:
            self.log.info("line %d", number)

    def report(self, answered: bool = True, anew: bool = False) -> list[int] | None:
        """Return the numbers of the lines in the next report."""
        found = self.tail.unanswered(anew)
        (self.tail.answered if answered else self.tail.failed)(found)
        return numbers(found)

    def texts(self) -> list[str]:
        found = self.tail.unanswered(False)
        return [line.text for line in found.lines] if found else []


def numbers(log: DaemonLog | None) -> list[int] | None:
    if log is None:
        return None
    assert [line.text for line in log.lines] == [f"line {line.number}" for line in log.lines]
    return [line.number for line in log.lines]


@pytest.fixture
def diary() -> Iterator[Diary]:
    found = Diary()
    yield found
    found.log.handlers = []


def test_a_line_has_number_time_level_and_logger(diary: Diary) -> None:
    before = datetime.now(UTC)
    diary.log.debug("not this")
    diary.log.info("hello %s", "you")
    diary.log.error("oh")
    found = diary.tail.unanswered(False)
    assert found is not None
    first, second = found.lines
    assert (first.number, first.level, first.logger, first.text) == (1, 20, "edge_worker.under_test", "hello you")
    assert (second.number, second.level, second.text) == (2, 40, "oh")
    assert before <= first.time <= second.time <= datetime.now(UTC)


def test_a_line_goes_with_reports_until_one_was_answered(diary: Diary) -> None:
    assert diary.report() is None
    diary.say(1, 2)
    found = diary.tail.unanswered(False)
    diary.say(3)
    diary.tail.answered(found)
    assert diary.report() == [3]
    assert diary.report() is None


def test_a_registration_has_all_that_are_kept(diary: Diary) -> None:
    diary.say(1, 2)
    assert diary.report() == [1, 2]
    diary.say(3)
    assert diary.report(anew=True) == [1, 2, 3]
    assert diary.report() is None


def test_the_newest_are_kept_and_numbers_tell_of_the_others(diary: Diary) -> None:
    diary.say(*range(1, 10_001))
    assert diary.report() == list(range(10_001 - MAX_LOG_LINES, 10_001))


def test_none_are_kept_where_none_are_wanted() -> None:
    diary = Diary(0)
    diary.say(1, 2)
    assert diary.report() is None
    diary.log.handlers = []


@pytest.mark.parametrize("character", ["x", "\x1b", "💥", '"', "\x00", "\udc80"], ids=ascii)
def test_lines_fit_in_a_message_with_thousands_of_jobs(diary: Diary, character: str) -> None:
    for _ in range(MAX_LOG_LINES):
        diary.log.info("%s", character * 10 * MAX_LOG_TEXT)
    found = diary.tail.unanswered(False)
    assert found is not None
    assert found.lines[-1].number == MAX_LOG_LINES
    assert {len(line.text) for line in found.lines} == {MAX_LOG_TEXT}
    job = {"id": "0" * 36, "claim": 2**31 - 1, "slots": 100_000}
    jobs = [{**job, "id": f"{number:032x}"} for number in range(10_000)]
    values = {"state": "running", "seq": 1, "sysinfo": {}, "jobs": jobs}
    alone = encode(Heartbeat.model_validate(values))
    whole = encode(Heartbeat.model_validate({**values, "log": found})).encode()
    assert len(whole) - len(alone) <= MOST + 1024
    assert len(whole) <= MAX_MESSAGE
    assert Heartbeat.model_validate_json(whole).log == found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("at postgresql://u:s3cret@db", "at postgresql://…@db"),
        ("token ewt_0123456789abcdef.s3cret-_s3cret, and", "token ewt_0123456789abcdef.…, and"),
        ("{'Authorization': 'Bearer s3cret'}", "{'Authorization': 'Bearer …'}"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.s3cret", "eyJ…"),
        ("a\x00b", "a\ufffdb"),
        ("a\udcffb", "a?b"),
        ("", ""),
    ],
    ids=ascii,
)
def test_a_line_has_no_secret_and_can_be_sent(diary: Diary, text: str, told: str) -> None:
    diary.log.info("%s", text)
    assert diary.texts() == [told]
    diary.log.error("it failed", exc_info=OSError(text))
    assert diary.texts()[1] == f"it failed: OSError: {told}"


def test_a_record_that_cannot_be_read_harms_nobody(diary: Diary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    diary.log.info("%d", "x")
    diary.say(1)
    assert diary.report() == [1]


def test_an_outage_loses_no_line_that_is_kept(diary: Diary) -> None:
    diary.say(1)
    attempts = [diary.report(answered=False) for _ in range(5)]
    assert attempts == [[1], None, [1], None, [1]]
    diary.say(2)
    assert [diary.report(), diary.report()] == [None, [1, 2]]


def test_reports_that_fail_only_with_these_lines_go_on_without_them(diary: Diary) -> None:
    diary.say(1, 2)
    for _ in range(STRIKES):
        assert diary.report(answered=False) == [1, 2]
        assert diary.report() is None
    diary.say(3)
    # A registration has all that are kept, and these are not any more.
    assert diary.report(anew=True) == [3]


def test_lines_that_got_through_in_the_end_are_not_held_against(diary: Diary) -> None:
    for number in range(1, 6):
        diary.say(number)
        assert diary.report(answered=False) == [number]
        assert diary.report() is None
        assert diary.report() == [number]


def test_threads_log_while_reports_are_made(diary: Diary) -> None:
    told: list[int] = []
    ready = threading.Barrier(5)

    def write() -> None:
        ready.wait(10)
        for _ in range(2000):
            diary.log.info("x")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    ready.wait(10)
    while any(thread.is_alive() for thread in threads):
        found = diary.tail.unanswered(False)
        told += [line.number for line in found.lines] if found else []
        diary.tail.answered(found)
    for thread in threads:
        thread.join()
    found = diary.tail.unanswered(False)
    told += [line.number for line in found.lines] if found else []
    assert told == sorted(set(told))
    assert told[-1] == 8000
