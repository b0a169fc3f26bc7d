"""Task logs as Airflow reads them: lines of text, a few chunks of the store or of a file in memory at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edge_otel.models import logs, tries
from edge_otel.models.session import new_session
from edge_otel.models.tables import Job, Log
from edge_otel.state import FINISHED

HEAD = 4096
"""Bytes at its beginning by which a file is known."""

FAULT_SUFFIX = ".fault"
"""Of the file beside a log that says what is wrong with it. Airflow shows what begins with the log's name."""

LENGTHS = "bytes_by_run"
"""Key in that file."""

FILE_PIECE = 1024 * 1024
"""Bytes of a file that are read at once."""


def stored(job_id: str, without: Mapping[int, int] = MappingProxyType({}), *, whole: bool = True) -> Iterator[str]:
    """Yield a stored log in pieces of text that end where a line does, ``without`` so many bytes of each claim.

    ``whole``: also what follows the last newline; a log that still grows is shown without it. Each look has a
    transaction of its own, so a slow reader holds none.
    """
    claim = min(without, default=0)
    end = claim, without.get(claim, 0)
    rest = _Rest()
    while pieces := _next(job_id, end):
        for piece in pieces:
            if piece.claim != end[0]:
                # Each run of a deferred task begins a new line.
                yield from rest.all()
            yield from rest.upto_newline(piece.data[max(0, without.get(piece.claim, 0) - piece.offset) :])
            end = piece.end
    if whole:
        yield from rest.all()


def in_file(path: Path) -> Iterator[str]:
    """Yield the text of a file in pieces that end where a line does; nothing where it cannot be opened."""
    try:
        file = path.open("rb")
    except OSError:
        return
    rest = _Rest()
    with file:
        while data := file.read(FILE_PIECE):
            yield from rest.upto_newline(data)
    yield from rest.all()


def lines(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the lines of pieces of text, without their newlines. A generator: Airflow takes nothing else."""
    for piece in pieces:
        yield from piece.removesuffix("\n").split("\n")


@dataclass(frozen=True)
class Stored:
    """What the store has of a job's log."""

    lengths: dict[int, int]
    """Bytes by claim."""
    uploaded: bool
    """Airflow's remote log has all of it."""
    fault: str | None
    """Which bytes are missing, or what else is wrong with it, in words."""


def look(job_id: str) -> Stored | None:
    """Return what the store has; None where it has nothing. Raises DatabaseFailure."""
    with new_session() as session:
        log, job = session.get(Log, job_id), session.get(Job, job_id)
        if log is None and job is None:
            return None
        lengths = logs.lengths(session, job_id)
        missing = logs.missing(job, lengths) if job is not None and job.state in FINISHED else {}
        fault = "; ".join(missing.values()) or (log.fault if log is not None else None)
        if log is None and fault is None:
            return None
        return Stored(lengths, log is not None and log.upload == "done", fault)


def key(job_id: str, path: str) -> str:
    """Return the key under which the store has the log of this job that belongs at ``path``. Raises DatabaseFailure."""
    with new_session() as session:
        return tries.key_of_log(session, job_id, path)


def id_of_try(task_instance: Any) -> str | None:
    """Return the id under which this try of a task ran, where it is another one by now. Raises DatabaseFailure."""
    from edge_otel.models import task_instances

    with new_session() as session:
        return task_instances.id_of_try(session, task_instance)


def held(job_id: str, lengths: dict[int, int], file: Path) -> dict[int, int]:
    """Return how many bytes of each claim of a stored log its file on this machine has, which was written from the
    store earlier. A file that begins otherwise is not this log's: a run that was deleted and made again has the same
    path."""
    try:
        with file.open("rb") as handle:
            head, left = handle.read(HEAD), os.fstat(handle.fileno()).st_size
    except OSError:
        return {}
    has = _told(file)
    if has is None or sum(has.values()) != left:
        # All that there was.
        has = {}
        for claim, length in lengths.items():
            has[claim] = min(left, length)
            left -= has[claim]
    first = next(iter(has.values()), 0)
    return has if _begin(job_id).startswith(head[:first]) else {}


def _told(file: Path) -> dict[int, int] | None:
    """Return what is said beside the file of a log that was not whole."""
    try:
        lengths = json.loads(file.with_name(file.name + FAULT_SUFFIX).read_text())[LENGTHS]
        return {int(claim): int(length) for claim, length in lengths.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def clear(file: Path) -> None:
    """Remove what is said beside a file that is whole: a log may have been completed by another server."""
    with suppress(OSError):
        file.with_name(file.name + FAULT_SUFFIX).unlink(missing_ok=True)


def _begin(job_id: str) -> bytes:
    """Return the first bytes of a stored log: HEAD, or all that there are."""
    found = b""
    end = (0, 0)
    while len(found) < HEAD and (pieces := _next(job_id, end)):
        found += b"".join(piece.data for piece in pieces)
        end = pieces[-1].end
    return found[:HEAD]


def fault_line(fault: str, at: datetime, lengths: Mapping[int, int] | None = None) -> str:
    """Return a line of a log, as Airflow writes them, that says what is wrong with it, and what there is of each
    claim."""
    line = {"timestamp": at.isoformat(), "level": "warning", "event": f"edge-otel: {fault}."}
    return json.dumps(line if lengths is None else {**line, LENGTHS: lengths}) + "\n"


class _Rest:
    """Bytes that belong to a line whose end did not come yet; a line may have a hundred megabytes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def upto_newline(self, data: bytes) -> Iterator[str]:
        end = data.rfind(b"\n") + 1
        if end:
            yield _text(b"".join([*self._parts, data[:end]]))
            self._parts = []
        if end < len(data):
            self._parts.append(data[end:])

    def all(self) -> Iterator[str]:
        if self._parts:
            yield _text(b"".join(self._parts))
            self._parts = []


def _text(data: bytes) -> str:
    text = data.decode(errors="backslashreplace")
    # Airflow opens files so that a carriage return ends a line.
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _next(job_id: str, end: tuple[int, int]) -> list[logs.Piece]:
    with new_session() as session:
        return logs.pieces(session, job_id, *end)
