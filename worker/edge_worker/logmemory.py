"""Which file a job's log was read from, written down for the daemon that comes after this one."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_worker import lasting


@dataclass(frozen=True)
class Known:
    """A file whose byte ``skip`` is byte ``start`` of the log."""

    identity: tuple[int, int]
    """Device and inode."""
    start: int
    skip: int
    head: bytes
    """Its first bytes, which tell it from another file in its place."""


def write(path: Path, known: Known) -> None:
    """Remember; without it a change of the file while no daemon runs may go unnoticed."""
    record = {**vars(known), "head": known.head.hex()}
    with suppress(OSError):
        lasting.write(path, json.dumps(record))


def read(path: Path) -> Known | None:
    """Return what was remembered, None where nothing can be read."""
    try:
        record = json.loads(path.read_bytes())
        device, inode = map(int, record["identity"])
        return Known((device, inode), int(record["start"]), int(record["skip"]), bytes.fromhex(record["head"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
