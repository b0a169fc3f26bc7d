"""Writes the logs of finished jobs to where Airflow's FileTaskHandler reads them: whole, and in one step."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import tempfile
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from edge_otel.models import jobs, logs
from edge_otel.models.session import Session, new_session
from edge_otel.models.tables import Job
from edge_otel.settings import LogFolder
from edge_otel.state import FINISHED

log = logging.getLogger(__name__)

SWEEP_INTERVAL = 10.0
"""Seconds between looks for logs that no request finished."""
_SWEEP_LIMIT = 200


def finalise(job_id: str, folder: LogFolder) -> bool:
    """Write the log file of a finished job. It is complete when all that its worker spoke of is here, or when the
    worker never said how much there is. A failure to write is logged and answered by False, never raised: the job's
    state is recorded, the store keeps the log, and the sweep tries again."""
    try:
        with new_session() as session:
            job = jobs.lock(session, job_id)
            if job is None or job.log_complete or job.log_path is None or job.state not in FINISHED:
                return True
            target = (folder.base / job.log_path).resolve()
            if folder.base.resolve() not in target.parents:
                log.error("Job %s: its log path leads out of the log folder: %s", job_id, job.log_path)
                return True
            complete = job.log_length is None or logs.all_here(session, job)
            if complete:
                _check(session, job)
            _write(session, job, target, folder)
            job.log_complete = complete
    except OSError:
        log.exception("Job %s: its log file cannot be written. The log stays in the database.", job_id)
        return False
    return True


def _check(session: Session, job: Job) -> None:
    digest = hashlib.sha256()
    for data in logs.read(session, job.id, job.claim):
        digest.update(data)
    if job.log_sha256 not in (None, digest.hexdigest()):
        log.error("Job %s: the log's checksum is not that of the worker.", job.id)


def _write(session: Session, job: Job, target: Path, folder: LogFolder) -> None:
    chunks = logs.read(session, job.id)
    first = next(chunks, None)
    if first is None:
        return
    _make_folder(target.parent, folder)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".edge-log-", delete=False) as part:
        try:
            part.write(first)
            for data in chunks:
                part.write(data)
            part.flush()
            Path(part.name).chmod(folder.new_file_mode)
            Path(part.name).replace(target)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise


def _make_folder(path: Path, folder: LogFolder) -> None:
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        new.chmod(folder.new_folder_mode)


class Sweep:
    """Looks for finished jobs whose log is not in its file: their worker died, their rest came late, or the disk was
    full. A log that is not complete is written as far as it is there, and again when there is more."""

    def __init__(self, folder: LogFolder) -> None:
        self._folder = folder
        self._written: dict[str, int] = {}

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                await run_in_threadpool(self.once)
            except Exception:
                log.warning("The look for unfinished logs failed; the next comes soon.", exc_info=True)
            await asyncio.sleep(SWEEP_INTERVAL)

    def once(self) -> None:
        """Write every log of which there is more than was written before."""
        with new_session() as session:
            found = jobs.with_log_to_write(session, _SWEEP_LIMIT)
            stored = {job_id: logs.stored_bytes(session, job_id) for job_id in found}
        self._written = {
            job_id: length
            for job_id, length in stored.items()
            if self._written.get(job_id) == length or finalise(job_id, self._folder)
        }
