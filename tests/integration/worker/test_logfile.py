"""A log file that is rotated, cut, removed or unreadable: no byte twice, none wrong, and what is missing is said."""

from __future__ import annotations

import hashlib
import json
import os
import random
from pathlib import Path

import pytest
from edge_worker.logfile import MOST_PARTS, LogFile

LINES = b"".join(b"line %06d\n" % i for i in range(1000))


class Task:
    """A job's folder, its log as somebody writes it, and what a server got of it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "logs"
        self.path = self.root / "dag" / "attempt=1.log"
        self.path.parent.mkdir(parents=True)
        self.memory = folder / "log.json"
        self.server = b""
        self.file = self.open()

    def open(self) -> LogFile:
        return LogFile(self.path, self.root, self.memory)

    def write(self, data: bytes) -> None:
        with self.path.open("ab") as handle:
            handle.write(data)

    def ship(self, most: int = 1 << 20) -> bytes:
        """Send all that there is; return the server's log."""
        self.file.look()
        while data := self.file.read(len(self.server), most):
            self.server += data
        return self.server

    def restart(self) -> None:
        """A daemon is killed, and the next one goes on from the server's cursor."""
        self.file.close()
        self.file = self.open()
        self.file.resume(len(self.server))

    def finish(self) -> str | None:
        length, digest = self.file.finish(5.0)
        self.ship()
        assert len(self.server) == self.file.end
        assert digest is None or (length, digest) == (len(self.server), hashlib.sha256(self.server).hexdigest())
        return digest

    def said(self) -> list[str]:
        """What the log says of missing bytes."""
        return [json.loads(line)["event"] for line in self.server.splitlines() if line.startswith(b"{")]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task(tmp_path)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_checksum_follows_the_file_and_not_the_server(task: Task) -> None:
    task.write(LINES)
    task.file.look()
    assert task.file.hash(4000)
    task.write(b"more\n")
    assert task.file.finish(5.0) == (len(LINES) + 5, hashlib.sha256(LINES + b"more\n").hexdigest())
    assert task.ship(777) == LINES + b"more\n"


def test_checksum_that_would_hold_the_end_is_left_out(task: Task) -> None:
    task.write(b"x" * (9 << 20))
    assert task.file.finish(-1.0) == (9 << 20, None)
    assert len(task.ship()) == 9 << 20


def test_log_that_never_was_is_empty(task: Task) -> None:
    assert task.file.finish(5.0) == (0, hashlib.sha256(b"").hexdigest())
    assert LogFile(None, task.root, task.memory).finish(5.0)[0] == 0


@pytest.mark.parametrize("shipped", [True, False])
def test_rotated_file_is_read_to_its_end_and_then_the_new_one(task: Task, shipped: bool) -> None:
    task.write(LINES)
    task.file.look()
    if shipped:
        task.ship()
    for number in range(3):
        task.write(b"last of %d\n" % number)
        task.path.rename(task.path.with_suffix(f".{number}"))
        task.write(b"first of %d\n" % (number + 1))
        task.file.look()
    task.write(b"end\n")
    between = b"".join(b"last of %d\nfirst of %d\n" % (i, i + 1) for i in range(3))
    assert task.finish()
    assert task.server == LINES + between + b"end\n"


def test_removed_file_is_read_as_long_as_somebody_writes_to_it(task: Task) -> None:
    with task.path.open("ab", buffering=0) as handle:
        handle.write(LINES)
        task.file.look()
        task.path.unlink()
        handle.write(b"after\n")
        task.file.look()
        handle.write(b"end\n")
        assert task.finish()
    assert task.server == LINES + b"after\nend\n"


def test_file_that_is_emptied_goes_on_and_says_how_much_was_not_sent(task: Task) -> None:
    task.write(LINES)
    task.file.look()
    assert not task.file.hash(1 << 20)
    task.server += task.file.read(0, 4000)
    os.truncate(task.path, 0)
    task.write(b"anew\n" + 2 * LINES)
    assert task.finish() is None
    assert task.server.startswith(LINES[:4000] + b'\n{"timestamp"')
    assert task.server.endswith(b"}\nanew\n" + 2 * LINES)
    assert f"{len(LINES) - 4000} bytes are missing" in task.said()[0]


def test_file_that_is_copied_and_emptied_after_all_was_sent_keeps_its_checksum(task: Task) -> None:
    task.write(LINES)
    task.ship()
    while task.file.hash(1 << 20):
        pass
    os.truncate(task.path, 0)
    task.file.look()
    task.write(b"anew\n")
    assert task.finish()
    assert "cut here: 0 bytes are missing" in task.said()[0]


@pytest.mark.parametrize("shipped", [2000, 8000])
def test_file_that_lost_its_end_is_not_sent_twice(task: Task, shipped: int) -> None:
    task.write(LINES)
    task.file.look()
    task.server += task.file.read(0, shipped)
    os.truncate(task.path, 5000)
    task.file.look()
    task.write(b"\nanew\n")
    task.finish()
    kept = max(shipped, 5000)
    assert task.server.startswith(LINES[:kept])
    assert task.server.endswith(b"}\n\nanew\n")
    assert task.server.count(b"line 000100\n") == 1
    assert f"{len(LINES) - kept} bytes are missing" in task.said()[0]


def test_file_that_was_written_anew_and_is_larger_than_before_is_not_taken_for_the_old_one(task: Task) -> None:
    task.write(LINES)
    task.file.look()
    task.server += task.file.read(0, 4000)
    task.path.write_bytes(b"another log\n" + LINES)
    assert b"line" not in task.file.read(4000, 1000)
    task.finish()
    assert task.server.startswith(LINES[:4000] + b"\n{")
    assert task.server.endswith(b"}\nanother log\n" + LINES)


@pytest.mark.parametrize("what", ["directory", "link", "pipe"])
def test_what_takes_the_files_place_and_is_none_of_the_jobs_files_is_not_read(
    task: Task, tmp_path: Path, what: str
) -> None:
    (tmp_path / "secret").write_bytes(b"secret\n")
    task.write(LINES)
    task.ship()
    task.path.unlink()
    if what == "directory":
        task.path.mkdir()
    elif what == "link":
        task.path.symlink_to(tmp_path / "secret")
    else:
        os.mkfifo(task.path)
    task.finish()
    assert task.server.startswith(LINES + b"{")
    assert b"secret\n" not in task.server
    assert "cannot be read (it " in task.said()[0]


def test_trouble_that_passes_is_not_in_the_log(task: Task) -> None:
    task.path.mkdir()
    task.file.look()
    task.path.rmdir()
    task.write(LINES)
    assert task.finish()
    assert task.server == LINES


def test_bytes_that_a_replaced_file_got_later_are_counted(task: Task) -> None:
    with task.path.open("ab", buffering=0) as old:
        old.write(LINES)
        task.ship()
        task.path.rename(task.path.with_suffix(".1"))
        task.write(b"new\n")
        task.ship()
        old.write(b"late\n")
    task.finish()
    assert task.server.startswith(LINES + b"new\n{")
    assert task.said()[0].startswith("5 bytes are missing")


def test_bytes_after_the_end_are_not_part_of_the_log_and_are_counted(task: Task) -> None:
    task.write(LINES)
    task.finish()
    task.write(b"a child that lives on\n")
    assert task.ship() == LINES
    assert task.file.late() == 22


def test_file_that_is_cut_after_the_end_and_before_it_was_sent_is_said_to_be_missing(task: Task) -> None:
    task.write(LINES)
    task.file.finish(5.0)
    task.server += task.file.read(0, 4000)
    os.truncate(task.path, 0)
    task.ship()
    task.write(b"not part of it\n")
    assert task.ship().startswith(LINES[:4000] + b"\n{")
    assert f"{len(LINES) - 4000} bytes are missing" in task.said()[0]
    assert task.server.endswith(b"}\n")


def test_server_that_lost_bytes_gets_them_from_before_a_rotation(task: Task) -> None:
    task.write(LINES)
    task.ship()
    task.path.rename(task.path.with_suffix(".1"))
    task.write(b"new\n")
    task.ship()
    task.server = task.server[:100]
    assert task.ship() == LINES + b"new\n"


def test_server_that_lost_bytes_which_are_gone_is_told_which(task: Task) -> None:
    task.write(LINES)
    task.ship()
    os.truncate(task.path, 0)
    task.file.look()
    task.write(b"anew\n")
    task.ship()
    task.server = task.server[:100]
    task.ship()
    assert task.server.startswith(LINES[:100] + b'\n{"timestamp"')
    assert task.server.endswith(b"}\nanew\n")
    assert task.said()[0] == f"Bytes 100 to {len(LINES) - 1} of this log are missing."


def test_restart_goes_on_from_the_cursor_with_a_checksum_of_all(task: Task) -> None:
    task.write(LINES)
    task.file.look()
    task.server += task.file.read(0, 3333)
    task.restart()
    task.write(b"end\n")
    assert task.finish()
    assert task.server == LINES + b"end\n"


def test_restart_after_a_rotation_goes_on_in_the_new_file(task: Task) -> None:
    task.write(LINES)
    task.ship()
    task.path.rename(task.path.with_suffix(".1"))
    task.write(b"new file\n")
    task.ship()
    task.restart()
    task.write(b"end\n")
    task.finish()
    assert task.server == LINES + b"new file\nend\n"


@pytest.mark.parametrize("fault", ["rotated", "emptied", "emptied and grown", "cut", "removed"])
def test_fault_while_no_daemon_runs_is_said(task: Task, fault: str) -> None:
    task.write(LINES)
    task.file.look()
    task.server += task.file.read(0, 8000)
    task.file.close()
    new = b"another first line\n" * (1000 if fault == "emptied and grown" else 1)
    if fault == "rotated":
        task.path.rename(task.path.with_suffix(".1"))
    elif fault == "removed":
        task.path.unlink()
    else:
        os.truncate(task.path, 5000 if fault == "cut" else 0)
    if fault in ("cut", "removed"):
        new = b""
    else:
        task.write(new)
    task.restart()
    task.finish()
    assert task.server.startswith(LINES[:8000])
    assert task.server.endswith(b"}\n" + new)
    assert "from byte 8000 on is missing" in task.said()[0]


def test_rest_of_a_reported_log_that_is_gone_is_said(task: Task) -> None:
    task.write(LINES)
    task.file.look()
    task.server += task.file.read(0, 4000)
    os.truncate(task.path, 5000)
    task.file.close()
    task.file = task.open()
    task.file.resume(4000)
    task.file.freeze(len(LINES))
    task.ship()
    assert task.server.startswith(LINES[:5000])
    assert task.said() == [f"Bytes 5000 to {len(LINES) - 1} of this log are missing: the file has fewer."]


def test_what_came_after_a_reported_end_is_not_sent_by_the_next_daemon(task: Task) -> None:
    task.write(LINES + b"late\n")
    task.file.freeze(len(LINES))
    assert task.ship() == LINES
    assert task.file.late() == 5


def test_file_that_is_replaced_for_ever_holds_few_descriptors(task: Task) -> None:
    before = descriptors()
    for number in range(2 * MOST_PARTS):
        task.write(b"%d\n" % number)
        task.ship()
        task.path.unlink()
    assert descriptors() <= before + MOST_PARTS
    assert task.server == b"".join(b"%d\n" % number for number in range(2 * MOST_PARTS))
    task.file.close()
    assert descriptors() == before


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_to_a_file_no_line_is_sent_twice_or_out_of_order(tmp_path: Path, seed: int) -> None:
    chance, task, written = random.Random(seed), Task(tmp_path), 0
    lossless = seed % 2 == 0
    for _ in range(200):
        step = chance.choice(["write", "write", "look", "hash", "ship", "rotate", "restart", "lose", "cut"])
        if step == "write":
            task.write(b"line %06d\n" % written)
            written += 1
        elif step == "look":
            task.file.look()
        elif step == "hash":
            task.file.hash(chance.randrange(100))
        elif step == "ship":
            task.server += task.file.read(len(task.server), chance.randrange(1, 60))
        elif step == "lose":
            task.server = task.server[: max(0, len(task.server) - chance.randrange(20))]
        elif step == "rotate" and task.path.exists():
            task.file.look()
            task.path.rename(task.path.with_suffix(f".{written}"))
            written += 1
            task.write(b"line %06d\n" % (written - 1))
        elif not lossless and step == "restart":
            task.restart()
        elif not lossless and step == "cut" and task.path.exists():
            os.truncate(task.path, 0)
        task.file.look()
    digest = task.finish()
    lines = [int(line[5:]) for line in task.server.splitlines() if len(line) == 11 and line.startswith(b"line ")]
    assert lines == sorted(set(lines))
    if lossless:
        assert lines == list(range(written))
        assert digest
        assert task.said() == []
    task.file.close()
