"""The spool: bounded, in order over restarts, and whole whatever becomes of its files and its disk."""

from __future__ import annotations

import gzip
import os
import random
import resource
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from edge_worker import spool
from edge_worker.otlp import Signal
from edge_worker.spool import Spool

Open = Callable[..., Spool]


@pytest.fixture
def dropped() -> Counter[tuple[str, str]]:
    return Counter()


@pytest.fixture
def open_spool(tmp_path: Path, dropped: Counter[tuple[str, str]]) -> Open:
    def begin(limit: int = 1 << 20, folder: Path | None = None) -> Spool:
        def drop(signal: Signal, reason: str, items: int) -> None:
            dropped[signal, reason] += items

        found = Spool(folder or tmp_path / "outbox", limit, drop)
        found.settle()
        return found

    return begin


def payloads(of: Spool, signal: Signal = "traces", limit: int = 1 << 30) -> list[bytes]:
    return [payload for _, payload in of.batch(signal, limit)]


def noise(size: int) -> bytes:
    """Bytes that gzip cannot make smaller."""
    return random.Random(size).randbytes(size)


def used(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


def test_records_come_in_order_per_signal_also_after_a_restart(open_spool: Open, tmp_path: Path) -> None:
    first = open_spool()
    for number in range(12):
        first.append("traces" if number % 2 else "logs", b"%d" % number, 1)
    for found in (first, open_spool()):
        assert payloads(found) == [b"1", b"3", b"5", b"7", b"9", b"11"]
        assert payloads(found, "logs") == [b"0", b"2", b"4", b"6", b"8", b"10"]
    second = open_spool()
    second.append("traces", b"new", 1)
    assert payloads(second)[-1] == b"new"
    assert (tmp_path / "outbox").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "outbox").iterdir()} == {0o600}


def test_batch_has_at_least_one_record_and_else_at_most_the_limit(open_spool: Open) -> None:
    found = open_spool()
    for size in (5, 5, 5, 50, 5):
        found.append("logs", b"x" * size, 1)
    assert [len(p) for p in payloads(found, "logs", 10)] == [5, 5]
    found.remove([record for record, _ in found.batch("logs", 10)])
    assert [len(p) for p in payloads(found, "logs", 10)] == [5]
    found.remove([record for record, _ in found.batch("logs", 10)])
    assert [len(p) for p in payloads(found, "logs", 10)] == [50]
    assert len(payloads(found, "logs", 0)) == 1


def test_oldest_make_room_and_are_counted_and_the_disk_is_never_over_the_limit(
    open_spool: Open, tmp_path: Path, dropped: Counter[tuple[str, str]]
) -> None:
    limit = 64 * 1024
    found = open_spool(limit)
    for number in range(30):
        found.append("traces", b"%02d" % number + noise(5000), 3)
        assert used(tmp_path / "outbox") <= limit
        assert found.size == used(tmp_path / "outbox")
    kept = [payload[:2] for payload in payloads(found)]
    assert kept == [b"%02d" % number for number in range(30 - len(kept), 30)]
    assert len(kept) == limit // 8192
    assert dropped == {("traces", "spool_full"): 3 * (30 - len(kept))}


def test_what_is_being_sent_is_not_dropped_to_make_room(open_spool: Open) -> None:
    found = open_spool(64 * 1024)
    found.append("logs", noise(5000), 1)
    ((held, _),) = found.batch("logs", 1)
    for size in range(5001, 5021):
        found.append("logs", noise(size), 1)
    assert found.batch("logs", 1)[0][0] is held


def test_record_larger_than_the_limit_drops_itself_alone(open_spool: Open, dropped: Counter[tuple[str, str]]) -> None:
    found = open_spool(16 * 1024)
    found.append("logs", b"small", 1)
    found.append("metrics", noise(20_000), 1)
    assert payloads(found, "logs") == [b"small"]
    assert dropped == {("metrics", "spool_full"): 1}


def test_smaller_limit_at_the_next_start_is_heeded(
    open_spool: Open, tmp_path: Path, dropped: Counter[tuple[str, str]]
) -> None:
    found = open_spool()
    for _ in range(10):
        found.append("logs", noise(3000), 1)
    smaller = open_spool(16 * 1024)
    assert smaller.size == used(tmp_path / "outbox") == 16 * 1024
    assert dropped == {("logs", "spool_full"): 6}


@pytest.mark.parametrize("damage", ["torn", "empty", "flipped", "foreign content", "bomb"])
def test_damaged_file_is_dropped_alone_with_a_word(
    open_spool: Open,
    tmp_path: Path,
    dropped: Counter[tuple[str, str]],
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    first = open_spool()
    for payload in (b"a" * 500, noise(500), b"c"):
        first.append("traces", payload, 7)
    victim = sorted((tmp_path / "outbox").iterdir())[1]
    whole = victim.read_bytes()
    contents = {
        "torn": whole[:-100],
        "empty": b"",
        "flipped": whole[:200] + bytes([whole[200] ^ 1]) + whole[201:],
        "foreign content": b"not gzip",
        "bomb": gzip.compress(b"\0" * (spool.RECORD_MAX + 1)),
    }
    victim.write_bytes(contents[damage])
    second = open_spool()
    assert payloads(second) == [b"a" * 500, b"c"]
    assert payloads(second) == [b"a" * 500, b"c"]
    assert dropped == {("traces", "corrupt"): 7}
    assert not victim.exists()
    assert caplog.text.count(victim.name) == 1


def test_foreign_files_are_left_alone(open_spool: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "outbox"
    folder.mkdir()
    (folder / "readme").write_text("mine")
    (folder / "000000000001-traces-1.otlp.gz").mkdir()
    (folder / "000000000002-logs-1.otlp.gz").symlink_to("/etc/passwd")
    (folder / f"{'9' * 18}-traces-1.otlp.gz").write_bytes(b"no record has such a number")
    found = open_spool()
    found.append("traces", b"x", 1)
    assert payloads(found) == [b"x"]
    assert payloads(found, "logs") == []
    assert (folder / "readme").read_text() == "mine"
    assert caplog.text.count("left alone") == 4


def test_file_that_vanishes_is_counted(open_spool: Open, tmp_path: Path, dropped: Counter[tuple[str, str]]) -> None:
    found = open_spool()
    found.append("traces", b"gone", 1)
    found.append("traces", b"here", 1)
    min((tmp_path / "outbox").iterdir()).unlink()
    assert payloads(found) == [b"here"]
    assert dropped == {("traces", "unreadable"): 1}


def test_folder_that_cannot_be_made_means_memory_until_it_can(
    open_spool: Open, tmp_path: Path, dropped: Counter[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (tmp_path / "outbox").write_text("in the way")
    found = open_spool()
    for number in range(5):
        found.append("traces", b"%d" % number, 1)
    assert payloads(found) == [b"0", b"1", b"2", b"3", b"4"]
    assert found.memory == found.size > 0
    assert caplog.text.count("cannot keep telemetry") == 1
    (tmp_path / "outbox").unlink()
    found.settle()
    assert found.memory == 0
    assert payloads(open_spool()) == [b"0", b"1", b"2", b"3", b"4"]
    assert "takes telemetry again" in caplog.text
    assert not dropped


def test_records_of_before_come_first_when_the_folder_can_be_read_late(open_spool: Open, tmp_path: Path) -> None:
    open_spool().append("traces", b"before", 1)
    (tmp_path / "outbox").rename(tmp_path / "away")
    (tmp_path / "outbox").write_text("in the way")
    late = open_spool()
    late.append("traces", b"after", 1)
    (tmp_path / "outbox").unlink()
    (tmp_path / "away").rename(tmp_path / "outbox")
    late.append("traces", b"last", 1)
    assert payloads(late) == payloads(open_spool()) == [b"before", b"after", b"last"]


def test_memory_is_bounded_while_the_disk_fails(
    open_spool: Open, tmp_path: Path, dropped: Counter[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "MEMORY", 20_000)
    (tmp_path / "outbox").write_text("in the way")
    found = open_spool()
    for number in range(10):
        found.append("logs", b"%d" % number + noise(5000), 1)
        assert found.memory <= 20_000
    assert [payload[:1] for payload in payloads(found, "logs")] == [b"7", b"8", b"9"]
    assert dropped == {("logs", "disk_failing"): 7}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_means_memory_until_there_is_room(
    open_spool: Open, small_disk: Path, dropped: Counter[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(noise(250_000))
    found = open_spool(folder=small_disk / "outbox")
    for number in range(10):
        found.append("logs", b"%d" % number + noise(8000), 1)
    assert [payload[:1] for payload in payloads(found, "logs")] == [b"%d" % number for number in range(10)]
    assert found.memory > 0
    assert caplog.text.count("No space left on device") == 1
    ballast.unlink()
    found.settle()
    assert found.memory == 0
    again = open_spool(folder=small_disk / "outbox")
    assert [payload[:1] for payload in payloads(again, "logs")] == [b"%d" % number for number in range(10)]
    assert not dropped


def test_half_of_what_is_free_is_left_to_the_tasks_also_when_others_fill_the_disk(
    open_spool: Open, small_disk: Path, dropped: Counter[tuple[str, str]]
) -> None:
    found = open_spool(folder=small_disk / "outbox")
    for number in range(100):
        found.append("logs", b"%d" % number + noise(3000), 1)
        assert shutil.disk_usage(small_disk).free >= 128 * 1024
    kept = 128 // 4
    assert [payload[:2] for payload in payloads(found, "logs")] == [b"%d" % number for number in range(100 - kept, 100)]
    assert dropped == {("logs", "spool_full"): 100 - kept}
    found.batch("logs", 0)
    (small_disk / "log of a task").write_bytes(noise(128 * 1024))
    found.settle()
    assert found.size == shutil.disk_usage(small_disk).free == 64 * 1024


def test_read_only_disk_delivers_what_is_there(
    open_spool: Open, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_spool(folder=small_disk / "outbox").append("logs", b"old", 1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    found = open_spool(folder=small_disk / "outbox")
    found.append("logs", b"new", 1)
    assert payloads(found, "logs") == [b"old", b"new"]
    found.remove([record for record, _ in found.batch("logs", 100)])
    assert payloads(found, "logs") == []
    assert found.size == 0
    assert caplog.text.count("cannot keep telemetry") == 1


def test_write_that_is_cut_short_leaves_no_torn_file(
    open_spool: Open, tmp_path: Path, dropped: Counter[tuple[str, str]]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    found = open_spool()
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        found.append("logs", noise(9000), 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "outbox").iterdir()) == []
    found.settle()
    assert payloads(found, "logs") == payloads(open_spool(), "logs") == [noise(9000)]
    assert not dropped
