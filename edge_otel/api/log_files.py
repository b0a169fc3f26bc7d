"""Writes the logs of finished jobs to where Airflow's FileTaskHandler reads them: whole, and in one step."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from edge_otel.models import jobs, logs
from edge_otel.models.session import new_session
from edge_otel.models.tables import Job
from edge_otel.settings import LogFolder
from edge_otel.state import FINISHED

log = logging.getLogger(__name__)

INLINE = 4 * 1024 * 1024
"""Bytes. Writing so much takes some tens of milliseconds; more than that is written in the background."""


@dataclass(frozen=True)
class _Finished:
    """A finished job whose log is to be written, as it was found."""

    path: str
    claim: int
    said: tuple[int | None, str | None]
    """Length and checksum of the last claim's log, by its worker."""
    lengths: dict[int, int]
    """Bytes that are stored, by claim."""

    @property
    def complete(self) -> bool:
        """Whether all that the worker spoke of is here, or it never said how much there is."""
        return self.said[0] is None or self.lengths.get(self.claim, 0) >= self.said[0]


class _Part(NamedTuple):
    """A file that is not in its place yet."""

    path: Path
    sha256: str
    """Of the last claim's bytes."""


class _Stopping(Exception):
    """The server ends; the next one finds the log."""


class Writer:
    """Writes logs: small ones at once, large ones in a thread. One per process."""

    def __init__(self, folder: LogFolder) -> None:
        self._folder = folder
        self._background = ThreadPoolExecutor(1, thread_name_prefix="edge-large-logs")
        self._waiting: set[str] = set()
        self._stopping = threading.Event()

    def close(self) -> None:
        """Let the thread end, also in the middle of a log."""
        self._stopping.set()
        self._background.shutdown(wait=True, cancel_futures=True)

    def finalise(self, job_id: str) -> bool:
        """Write the log file of a finished job. It is complete when all that its worker spoke of is here, or when the
        worker never said how much there is. A failure to write is logged and answered by False, never raised: the
        job's state is recorded, the store keeps the log, and the sweep tries again."""
        if job_id in self._waiting:
            return False
        try:
            with new_session() as session:
                found = _finished(session.get(Job, job_id), logs.lengths(session, job_id))
            if found is None:
                return True
            if sum(found.lengths.values()) > INLINE:
                self._waiting.add(job_id)
                self._background.submit(self._write_large, job_id, found)
                return False
            return self._write_now(job_id, found)
        except OSError:
            log.exception("Job %s: its log file cannot be written. The log stays in the database.", job_id)
            return False

    def _write_large(self, job_id: str, found: _Finished) -> None:
        try:
            self._write_now(job_id, found)
        except _Stopping:
            pass
        except Exception:
            log.exception("Job %s: its log file cannot be written. The log stays in the database.", job_id)
        finally:
            self._waiting.discard(job_id)

    def _write_now(self, job_id: str, found: _Finished) -> bool:
        target = (self._folder.base / found.path).resolve()
        if self._folder.base.resolve() not in target.parents:
            log.error("Job %s: its log path leads out of the log folder: %s", job_id, found.path)
            return True
        if not found.lengths:
            return _store(job_id, found, None, target)
        _make_folder(target.parent, self._folder)
        with self._assembled(job_id, found.claim, target) as part:
            return _store(job_id, found, part, target)

    @contextmanager
    def _assembled(self, job_id: str, claim: int, target: Path) -> Iterator[_Part]:
        """Yield a file with the log beside its target. The job is not locked: a large log takes a while."""
        digest = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".edge-log-", delete=False) as part:
            try:
                end = (0, 0)
                while pieces := _next(job_id, end):
                    if self._stopping.is_set():
                        raise _Stopping
                    for piece in pieces:
                        part.write(piece.data)
                        if piece.claim == claim:
                            digest.update(piece.data)
                    end = pieces[-1].end
                part.flush()
                Path(part.name).chmod(self._folder.new_file_mode)
                yield _Part(Path(part.name), digest.hexdigest())
            finally:
                Path(part.name).unlink(missing_ok=True)


def _finished(job: Job | None, lengths: dict[int, int]) -> _Finished | None:
    if job is None or job.log_complete or job.log_path is None or job.state not in FINISHED:
        return None
    return _Finished(job.log_path, job.claim, (job.log_length, job.log_sha256), lengths)


def _next(job_id: str, end: tuple[int, int]) -> list[logs.Piece]:
    with new_session() as session:
        return logs.pieces(session, job_id, *end)


def _store(job_id: str, found: _Finished, part: _Part | None, target: Path) -> bool:
    """Put the file in its place and say so in the table, unless there is more by now."""
    with new_session() as session:
        job = jobs.lock(session, job_id)
        now_found = _finished(job, logs.lengths(session, job_id))
        if job is None or now_found is None:
            return True
        if now_found != found:
            return False
        if part is not None:
            if found.complete and found.said[1] not in (None, part.sha256):
                log.error("Job %s: the log's checksum is not that of the worker.", job_id)
            _write(part.path, target)
        job.log_complete = found.complete
        if found.complete:
            logs.mark_written(session, job_id, datetime.now(UTC))
    return True


def _write(part: Path, target: Path) -> None:
    part.replace(target)


def _make_folder(path: Path, folder: LogFolder) -> None:
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        new.chmod(folder.new_folder_mode)
