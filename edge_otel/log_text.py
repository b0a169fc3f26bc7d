"""Task logs as Airflow reads them: lines of text, a few chunks of the store or of a file in memory at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edge_otel.models import logs
from edge_otel.models.session import new_session
from edge_otel.models.tables import Job, Log
from edge_otel.state import FINISHED

HEAD = 4096
"""Bytes at its beginning by which a file is known."""

FAULT_SUFFIX = ".fault"
"""Of the file beside a log that says what is wrong with it. Airflow shows what begins with the log's name."""

FILE_PIECE = 1024 * 1024
"""Bytes of a file that are read at once."""


def stored(job_id: str, start: tuple[int, int] = (0, 0), *, whole: bool = True) -> Iterator[str]:
    """Yield a stored log from a byte of a claim on, in pieces of text that end where a line does.

    ``whole``: also what follows the last newline; a log that still grows is shown without it. Each look has a
    transaction of its own, so a slow reader holds none.
    """
    end = start
    rest = _Rest()
    while pieces := _next(job_id, end):
        for piece in pieces:
            if piece.claim != end[0]:
                # Each run of a deferred task begins a new line.
                yield from rest.all()
            yield from rest.upto_newline(piece.data)
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
        log = session.get(Log, job_id)
        if log is None:
            return None
        lengths = logs.lengths(session, job_id)
        job = session.get(Job, job_id)
        missing = logs.missing(job, lengths) if job is not None and job.state in FINISHED else None
        return Stored(lengths, log.upload == "done", missing or log.fault)


def after(job_id: str, lengths: dict[int, int], file: Path) -> tuple[int, int] | None:
    """Return the claim and byte with which a log goes on behind its file on this machine, which is its beginning as it
    was written from the store; None where the file has all. A file that begins otherwise is not this log's: a run that
    was deleted and made again has the same path."""
    try:
        with file.open("rb") as handle:
            head, left = handle.read(HEAD), os.fstat(handle.fileno()).st_size
    except OSError:
        head, left = b"", 0
    if head and not _begin(job_id).startswith(head):
        left = 0
    for claim, length in lengths.items():
        if left < length:
            return claim, left
        left -= length
    return None


def _begin(job_id: str) -> bytes:
    """Return the first bytes of a stored log: HEAD, or all that there are."""
    found = b""
    end = (0, 0)
    while len(found) < HEAD and (pieces := _next(job_id, end)):
        found += b"".join(piece.data for piece in pieces)
        end = pieces[-1].end
    return found[:HEAD]


def fault_line(fault: str, at: datetime) -> str:
    """Return a line of a log, as Airflow writes them, that says what is wrong with it."""
    line = {"timestamp": at.isoformat(), "level": "warning", "event": f"edge-otel: {fault}."}
    return json.dumps(line) + "\n"


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
