"""Writes the logs of finished jobs to where Airflow's FileTaskHandler reads them: whole, and in one step."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from edge_otel.log_text import FAULT_SUFFIX, fault_line
from edge_otel.models import jobs, logs
from edge_otel.models.session import new_session
from edge_otel.models.tables import Job
from edge_otel.settings import LogFolder
from edge_otel.state import FINISHED

log = logging.getLogger(__name__)

INLINE = 4 * 1024 * 1024
"""Bytes. Writing so much takes some tens of milliseconds; more than that is written in the background."""


AGAIN = 60.0
"""Seconds until a log is tried again whose file could not be written."""
GROWTH, LATER = 1.25, 600.0
"""A log that is not complete is written again when it has grown by this factor, or after so many seconds."""


class _Finished(NamedTuple):
    """A finished job whose log is to be written, as it was found."""

    path: str
    ends: dict[str, Any]
    """Length and checksum of the log by claim, as the workers said."""
    lengths: dict[int, int]
    """Bytes that are stored, by claim."""
    missing: dict[int, str]
    """What is not here yet, in words by claim."""


class _Part(NamedTuple):
    """A file that is not in its place yet."""

    path: Path
    sha256: dict[int, str]
    """Of the bytes of each claim."""
    lengths: dict[int, int]
    """Bytes of each claim: of one that is not whole, only its whole lines."""

    def fault(self, ends: dict[str, Any]) -> str | None:
        """Return how it differs from what the workers said that they sent."""
        wrong = [
            claim for claim, digest in self.sha256.items() if ends.get(str(claim), (0, None))[1] not in (None, digest)
        ]
        return f"the checksum is not that of the worker (run {wrong[0]})" if wrong else None


class _Stopping(Exception):
    """The server ends; the next one finds the log."""


class Writer:
    """Writes logs: small ones at once, large ones in a thread. One per process."""

    def __init__(self, folder: LogFolder) -> None:
        self._folder = folder
        self._background = ThreadPoolExecutor(1, thread_name_prefix="edge-large-logs")
        self._waiting: set[str] = set()
        self._partial: dict[str, tuple[int, float]] = {}
        """Logs that were written before they were complete: their bytes, and when."""
        self._failed: dict[str, float] = {}
        """When the files of logs could not be written."""
        self._stopping = threading.Event()

    def close(self) -> None:
        """Let the thread end, also in the middle of a log."""
        self._stopping.set()
        self._background.shutdown(wait=True, cancel_futures=True)

    def finalise(self, job_id: str) -> None:
        """Write the log file of a finished job. It is complete when all that its workers spoke of is here. A failure to
        write is logged, never raised: the job's state is recorded, the store keeps the log, and the sweep tries again.
        """
        if job_id in self._waiting:
            return
        with new_session() as session:
            found = _finished(session.get(Job, job_id), logs.lengths(session, job_id))
        try:
            if found is None or not self.is_due(job_id, found.lengths, whole=not found.missing):
                return
            if sum(found.lengths.values()) > INLINE:
                self._waiting.add(job_id)
                self._background.submit(self._write_large, job_id, found)
            else:
                self._write(job_id, found)
        except OSError as error:
            self._fail(job_id, found, error)

    def is_due(self, job_id: str, lengths: Mapping[int, int], *, whole: bool) -> bool:
        """Return whether so much of a log is worth a file, or another one; meanwhile ``edge://`` reads it from the
        database."""
        if time.monotonic() - self._failed.get(job_id, -AGAIN) < AGAIN:
            return False
        stored, (written, at) = sum(lengths.values()), self._partial.get(job_id, (-1, 0.0))
        return whole or stored > written * GROWTH or (stored > written and time.monotonic() - at > LATER)

    def forget_but(self, unwritten: Collection[str]) -> None:
        """Remember nothing of logs that are complete, or gone."""
        for memory in (self._partial, self._failed):
            for job_id in memory.keys() - set(unwritten):
                del memory[job_id]

    def _fail(self, job_id: str, found: _Finished | None, error: OSError) -> None:
        if isinstance(error, FileNotFoundError):
            log.info("Job %s: another server has written its log file meanwhile.", job_id)
            return
        self._failed[job_id] = time.monotonic()
        log.error("Job %s: its log file cannot be written. The log stays in the database.", job_id, exc_info=error)
        if found is not None and not found.missing:
            # The remote log does without the file.
            with new_session() as session:
                logs.mark_whole(session, job_id, datetime.now(UTC))

    def _write_large(self, job_id: str, found: _Finished) -> None:
        try:
            self._write(job_id, found)
        except _Stopping:
            pass
        except OSError as error:
            self._fail(job_id, found, error)
        except Exception:
            log.exception("Job %s: its log file is not written; the next look tries again.", job_id)
        finally:
            self._waiting.discard(job_id)

    def _write(self, job_id: str, found: _Finished) -> None:
        target = (self._folder.base / found.path).resolve()
        if self._folder.base.resolve() not in target.parents:
            log.error("Job %s: its log path leads out of the log folder: %s", job_id, found.path)
            return
        if found.lengths or found.missing:
            make_folder(target.parent, self._folder)
        with self._assembled(job_id, found.missing, target.parent) if found.lengths else nullcontext() as part:
            self._store(job_id, found, part, target)

    @contextmanager
    def _assembled(self, job_id: str, missing: Collection[int], folder: Path) -> Iterator[_Part]:
        """Yield a file with the log; ``missing``: the claims that are not whole. The job is not locked: a large log
        takes a while."""
        digests: dict[int, Any] = {}
        lengths: dict[int, int] = {}
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{job_id}-", delete=False) as part:
            try:
                end, begin, kept = (0, 0), 0, 0
                while pieces := _next(job_id, end):
                    if self._stopping.is_set():
                        raise _Stopping
                    for piece in pieces:
                        if piece.claim != end[0]:
                            begin = part.seek(kept)
                        part.write(piece.data)
                        # The rest of a line will come, or else a reader beside the file begins within it.
                        whole = piece.data.rfind(b"\n") + 1 if piece.claim in missing else len(piece.data)
                        kept = part.tell() - len(piece.data) + whole if whole else kept
                        lengths[piece.claim] = kept - begin
                        digests.setdefault(piece.claim, hashlib.sha256()).update(piece.data)
                        end = piece.end
                part.truncate(kept)
                part.flush()
                Path(part.name).chmod(self._folder.new_file_mode)
                sums = {claim: digest.hexdigest() for claim, digest in digests.items()}
                yield _Part(Path(part.name), sums, lengths)
            finally:
                Path(part.name).unlink(missing_ok=True)

    def _store(self, job_id: str, found: _Finished, part: _Part | None, target: Path) -> None:
        """Put the file in its place and say so in the table, unless there is more by now."""
        with new_session() as session:
            job = jobs.lock(session, job_id)
            if job is None or _finished(job, logs.lengths(session, job_id)) != found:
                return
            fault = "; ".join(found.missing.values()) or (part.fault(found.ends) if part is not None else None)
            if part is not None:
                part.path.replace(target)
                # Of a server that was killed over this log; one that lives finds its own gone, and looks again.
                for other in target.parent.glob(f".{job_id}-*"):
                    other.unlink(missing_ok=True)
            tell(fault, part.lengths if part is not None else {}, target, self._folder)
            if fault is not None and found.missing:
                logs.mark_partial(session, job_id, fault)
                self._partial[job_id] = sum(found.lengths.values()), time.monotonic()
                return
            if fault is not None:
                log.error("Job %s: %s", job_id, fault)
            job.log_complete = True
            logs.mark_whole(session, job_id, datetime.now(UTC), fault)


def _finished(job: Job | None, lengths: dict[int, int]) -> _Finished | None:
    if job is None or job.log_complete or job.log_path is None or job.state not in FINISHED:
        return None
    return _Finished(job.log_path, job.log_ends, lengths, logs.missing(job, lengths))


def _next(job_id: str, end: tuple[int, int]) -> list[logs.Piece]:
    with new_session() as session:
        return logs.pieces(session, job_id, *end)


def tell(fault: str | None, lengths: dict[int, int], target: Path, folder: LogFolder) -> None:
    """Say what is wrong with a log in a file beside it, which Airflow shows with it, and how much of each claim the
    log's own file has; remove that where nothing is wrong."""
    beside = target.with_name(target.name + FAULT_SUFFIX)
    if fault is None:
        beside.unlink(missing_ok=True)
        return
    beside.write_text(fault_line(fault, datetime.now(UTC), lengths))
    beside.chmod(folder.new_file_mode)


def make_folder(path: Path, folder: LogFolder) -> None:
    """Make a folder and those above it, with Airflow's permissions."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        new.chmod(folder.new_folder_mode)
