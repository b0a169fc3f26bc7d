"""A log whose disk is full for some of its lines."""

from __future__ import annotations

import json
import random

import pytest
from edge_worker.lenient import Lines

LINES = [json.dumps({"event": str(i), "more": "x" * (i * 37 % 400)}).encode() + b"\n" for i in range(200)]


class Disk:
    """Takes as many bytes as there is room for, and a part of a line where it has no more."""

    def __init__(self) -> None:
        self.room, self.taken = 0, b""

    def write(self, data: bytes) -> int:
        if not self.room:
            raise OSError
        part = data[: self.room]
        self.room -= len(part)
        self.taken += part
        return len(part)

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.taken.splitlines()]


def told(events: list[str]) -> list[int]:
    """Return the numbers of the lines that are there, or that a note in their place counts; each note is for a gap."""
    found: list[int] = []
    before = ""
    for event in events:
        if event.isdigit():
            found.append(int(event))
        else:
            assert before.isdigit(), "two notes for one gap"
            number, _, text = event.partition(" ")
            assert text == "lines of this log are missing here: they could not be written."
            found += range(found[-1] + 1, found[-1] + 1 + int(number))
        before = event
    return found


@pytest.mark.parametrize("part", [0, 1, len(LINES[3]) - 1, len(LINES[3])], ids=["none", "a byte", "all but one", "all"])
def test_a_gap_is_told_once_and_exactly(part: int) -> None:
    disk = Disk()
    log = Lines(disk.write)
    disk.room = sum(map(len, LINES[:3])) + part
    for line in LINES[:10]:
        log.add(line)
    disk.room = 10_000
    for line in LINES[10:12]:
        log.add(line)
    # The first that found no room, or not enough, has waited.
    there = 4 if part < len(LINES[3]) else 5
    missing = f"{10 - there} lines of this log are missing here: they could not be written."
    assert disk.events() == [*map(str, range(there)), missing, "10", "11"]


def test_whatever_room_there_is_each_line_is_there_or_counted_in_its_place() -> None:
    for seed in range(300):
        draw, disk = random.Random(seed), Disk()
        log = Lines(disk.write)
        for line in LINES:
            disk.room = draw.choice([0, 0, draw.randrange(300), 1000])
            log.add(line)
        disk.room = 10_000
        log.end()
        assert told(disk.events()) == list(range(len(LINES))), seed


def test_what_is_missing_at_the_end_is_told_where_there_is_room_by_then() -> None:
    disk = Disk()
    log = Lines(disk.write)
    for line in LINES[:5]:
        log.add(line)
    log.end()
    assert disk.taken == b""
    disk.room = 10_000
    log.end()
    assert disk.events()[0] == "0"
    assert disk.events()[1].startswith("4 lines of this log are missing")
