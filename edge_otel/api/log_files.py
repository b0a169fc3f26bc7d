"""Writes a finished job's log to where Airflow's FileTaskHandler reads it: once, whole, and atomically."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from pathlib import Path

from edge_otel.models import jobs, logs
from edge_otel.models.session import new_session
from edge_otel.settings import LogFolder

log = logging.getLogger(__name__)


def finalise(job_id: str, folder: LogFolder) -> None:
    """Write the log file if the job is over and its bytes are all here. A failure to write is logged, never raised:
    the job's state is recorded, and the store keeps the log."""
    try:
        with new_session() as session:
            job = jobs.lock(session, job_id)
            if job is None or not logs.ready_to_finalise(session, job) or job.log_path is None:
                return
            target = (folder.base / job.log_path).resolve()
            if folder.base.resolve() not in target.parents:
                log.error("Job %s: its log path leads out of the log folder: %s", job_id, job.log_path)
                return
            digest = hashlib.sha256()
            for data in logs.read(session, job_id, job.claim):
                digest.update(data)
            if job.log_sha256 not in (None, digest.hexdigest()):
                log.error("Job %s: the log's checksum is not that of the worker.", job_id)
            _make_folder(target.parent, folder)
            with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".edge-log-", delete=False) as part:
                try:
                    for data in logs.read(session, job_id):
                        part.write(data)
                    Path(part.name).chmod(folder.new_file_mode)
                    Path(part.name).replace(target)
                except BaseException:
                    Path(part.name).unlink(missing_ok=True)
                    raise
            job.log_complete = True
    except OSError:
        log.exception("Job %s: its log file cannot be written. The log stays in the database.", job_id)


def _make_folder(path: Path, folder: LogFolder) -> None:
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        new.chmod(folder.new_folder_mode)
