"""Telemetry on disk until it is delivered: one gzip file per record, bounded, the oldest dropped first.

A record is a serialized Export…ServiceRequest. The file's name is its number, signal and how many payloads were merged
in it. gzip brings the checksum: a torn or damaged file is found when it is read. Nothing is synced, for small flash
disks: what is here outlives a kill of the daemon, but a loss of power may cost the last seconds. It takes half of the
free space of its disk at most, for tasks need the rest.
"""

from __future__ import annotations

import errno
import gzip
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from edge_worker.otlp import Signal, unzip

log = logging.getLogger(__name__)

MEMORY = 8 * 1024 * 1024
"""Bytes of records at most that wait in memory while the disk takes none."""

RECORD_MAX = 32 * 1024 * 1024
"""Bytes of one record at most, decompressed: what is larger is not ours."""

_BLOCK = 4096
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_NAME = re.compile(r"(\d{12,15})-(traces|metrics|logs)-(\d{1,9})\.otlp\.gz")

Drop = Callable[[Signal, str, int], None]


@dataclass(slots=True)
class Record:
    """One record; ``data`` is its gzip stream where it is not on disk."""

    number: int
    signal: Signal
    payloads: int
    size: int
    """Bytes on disk, in whole blocks; in memory those of ``data``."""
    data: bytes | None = None
    blamed: int = 0
    """How often it could not be delivered while others could."""

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.number:012d}-{self.signal}-{self.payloads}.otlp.gz"


class Spool:
    """The records in order. Thread-safe; every method but ``size`` may wait for the disk, none raises OSError."""

    def __init__(self, folder: Path, limit: int, drop: Drop) -> None:
        self._folder = folder
        self._limit = limit
        self._drop = drop
        self._lock = threading.Lock()
        self._records: dict[int, Record] = {}
        """By number, the oldest first."""
        self._used = 0
        self._held: dict[Signal, set[int]] = {}
        """Records that are being sent: not dropped to make room."""
        self._next = 1
        self._opened = False
        self._failing = False
        self.memory = 0
        """Bytes of records in memory."""

    @property
    def size(self) -> int:
        """Bytes of all records."""
        return self._used + self.memory

    def settle(self) -> None:
        """Find what an earlier daemon left, and bring to the disk what could not be written before."""
        with self._lock:
            self._settle()

    def append(self, signal: Signal, payload: bytes, payloads: int) -> None:
        """Keep a record, on disk where possible."""
        data = gzip.compress(payload, compresslevel=1)
        with self._lock:
            self._records[self._next] = Record(self._next, signal, payloads, len(data), data)
            self._next += 1
            self.memory += len(data)
            self._settle()
            self._bound_memory()

    def batch(self, signal: Signal, limit: int) -> list[tuple[Record, bytes]]:
        """Return the oldest records of a signal: at least one where there is one, at most ``limit`` bytes of several.

        They are kept until ``remove``, and not dropped to make room before the next call.
        """
        found: list[tuple[Record, bytes]] = []
        total = 0
        with self._lock:
            held = self._held[signal] = set[int]()
            for record in [r for r in self._records.values() if r.signal == signal]:
                payload = self._read(record)
                if payload is None:
                    continue
                total += len(payload)
                if found and total > limit:
                    break
                found.append((record, payload))
                held.add(record.number)
                if total >= limit:
                    break
        return found

    def remove(self, records: Iterable[Record], reason: str | None = None) -> None:
        """Forget records: delivered ones, or with a ``reason`` why they are dropped."""
        with self._lock:
            for record in records:
                if record.number in self._records:
                    self._forget(record, reason)

    def postpone(self, record: Record) -> None:
        """Put a record behind the others, until the next start."""
        with self._lock:
            if self._records.pop(record.number, None) is not None:
                self._records[record.number] = record

    def clear(self, signal: Signal) -> None:
        """Forget all records of a signal that nobody wants."""
        with self._lock:
            for record in [r for r in self._records.values() if r.signal == signal]:
                self._forget(record, None)

    def waits(self, signal: Signal) -> bool:
        """Return whether there is a record of this signal."""
        with self._lock:
            return any(record.signal == signal for record in self._records.values())

    def _settle(self) -> None:
        if not self._opened:
            self._open()
        if not self._opened:
            return
        self._make_room(0)
        for record in [r for r in self._records.values() if r.data is not None]:
            self._store(record)
            if self._failing:
                return

    def _open(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            entries = [(entry.name, entry.is_file(follow_symlinks=False)) for entry in os.scandir(self._folder)]
            found: list[Record] = []
            for name, is_file in entries:
                match = _NAME.fullmatch(name)
                if match is None or not is_file:
                    log.warning("outbox: %s is not a record and is left alone", self._folder / name)
                    continue
                size = _blocks((self._folder / name).stat())
                found.append(Record(int(match[1]), cast("Signal", match[2]), int(match[3]), size))
        except OSError as error:
            self._fail(error)
            return
        self._opened = True
        found.sort(key=lambda record: record.number)
        # Records of the time in which the folder could not be read come after those in it.
        first = found[-1].number + 1 if found else 1
        fresh = list(self._records.values())
        for number, record in enumerate(fresh, max(first, self._next)):
            record.number = number
        self._records = {record.number: record for record in (*found, *fresh)}
        self._next = max([first, self._next, *(number + 1 for number in self._records)])
        self._used = sum(record.size for record in found)
        if found:
            log.info("outbox: %d records of telemetry, %d bytes, wait from before", len(found), self._used)

    def _store(self, record: Record) -> None:
        """Bring a record from memory to the disk, if that can be."""
        assert record.data is not None
        need = -(-len(record.data) // _BLOCK) * _BLOCK
        if need > self._limit:
            self._forget(record, "spool_full")
            return
        if not self._make_room(need):
            self._fail(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
            return
        path = self._folder / record.name
        try:
            try:
                descriptor = os.open(path, _NEW, 0o600)
            except FileNotFoundError:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                descriptor = os.open(path, _NEW, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(record.data)
                    file.flush()
                    size = _blocks(os.fstat(file.fileno()))
            except OSError:
                path.unlink(missing_ok=True)
                raise
        except OSError as error:
            self._fail(error)
            return
        self.memory -= record.size
        record.size, record.data = size, None
        self._used += size
        if self._failing:
            self._failing = False
            log.info("outbox: %s takes telemetry again", self._folder)

    def _fail(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            text = "outbox: cannot keep telemetry in %s: %s; keeping up to %d MiB in memory until that works"
            log.error(text, self._folder, error.strerror, MEMORY // 1024 // 1024)

    def _make_room(self, need: int) -> bool:
        """Drop the oldest records on disk until ``need`` bytes fit; return whether they do."""
        if self._used + need <= self._bound():
            return True
        for record in self._loose(on_disk=True):
            self._forget(record, "spool_full")
            if self._used + need <= self._bound():
                return True
        return False

    def _bound(self) -> int:
        """Return how many bytes may be used now: of what others leave free on the disk at most half."""
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError:
            return self._limit
        return min(self._limit, (self._used + free) // 2)

    def _bound_memory(self) -> None:
        for record in self._loose(on_disk=False):
            if self.memory <= MEMORY:
                return
            self._forget(record, "disk_failing")

    def _loose(self, on_disk: bool) -> list[Record]:
        """Return the records that are not being sent, and are on disk or not."""
        held = set().union(*self._held.values())
        return [r for r in self._records.values() if (r.data is None) is on_disk and r.number not in held]

    def _forget(self, record: Record, reason: str | None) -> None:
        del self._records[record.number]
        if record.data is None:
            self._used -= record.size
            try:
                (self._folder / record.name).unlink(missing_ok=True)
            except OSError as error:
                self._fail(error)
        else:
            self.memory -= record.size
        if reason is not None:
            self._drop(record.signal, reason, record.payloads)

    def _read(self, record: Record) -> bytes | None:
        path = self._folder / record.name
        try:
            return unzip(record.data if record.data is not None else path.read_bytes(), RECORD_MAX)
        except ValueError as error:
            log.warning("outbox: %s is dropped: %s", path, error)
            self._forget(record, "corrupt")
        except OSError as error:
            log.warning("outbox: %s cannot be read and is left for the next start: %s", path, error.strerror)
            del self._records[record.number]
            self._used -= record.size
            self._drop(record.signal, "unreadable", record.payloads)
        return None


def _blocks(found: os.stat_result) -> int:
    """Return what a file takes on disk, in bytes; where the system does not tell, in blocks of the usual size."""
    whole = -(-found.st_size // _BLOCK) * _BLOCK
    return max(whole, getattr(found, "st_blocks", 0) * 512)
