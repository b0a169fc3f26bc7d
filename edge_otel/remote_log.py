"""Airflow's remote log ``edge://``: finished logs from the store, on every API server alike. ``edge+s3://…``, or any
other that Airflow knows, wraps a remote log, which has what was uploaded.

Each byte comes from one place. Airflow reads a running task's log by the executor, and files of its own machine unless
the task is finished and the remote log has answered; what is read there is not answered here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Protocol
from urllib.parse import urlsplit

from edge_otel.errors import ConfigurationInvalid
from edge_otel.settings import LogFolder, airflow_configuration

log = logging.getLogger(__name__)

Answer = tuple[list[str], list[Iterator[str]]]
"""Where a log was read, in words, and its lines by source."""
NOTHING: Answer = ([], [])


class TaskInstance(Protocol):
    """What is read of Airflow's TaskInstance or TaskInstanceHistory."""

    id: Any
    state: Any


class EdgeRemoteLog:
    """A RemoteLogIO over the store, and over another one where that has what was uploaded."""

    def __init__(self, folder: LogFolder, inner: Any = None) -> None:
        if why := unfit(inner):
            raise ConfigurationInvalid(f"[logging] remote_base_log_folder: {why}")
        self._folder = folder
        self.inner = inner
        """The wrapped RemoteLogIO; None: the store is the only home of a log."""

    @classmethod
    def from_config(cls) -> EdgeRemoteLog:
        """Return what ``[logging]`` describes, for an Airflow that finds remote logs by their providers."""
        conf = airflow_configuration()
        inner = inner_folder(conf.get("logging", "remote_base_log_folder", fallback="") or "")
        if inner is None:
            return cls(LogFolder.read(conf))
        from airflow.providers_manager import ProvidersManager

        found = ProvidersManager().remote_logging_handler_by_scheme(urlsplit(inner).scheme)
        if found is None:
            raise ConfigurationInvalid(f"[logging] remote_base_log_folder: no provider has a remote log for {inner}.")
        with settings_of_inner(inner):
            return cls(LogFolder.read(conf), resolve_name(found.classpath).from_config())

    @property
    def processors(self) -> tuple[Any, ...]:
        """Structlog's processors for tasks that run beside Airflow: those of the wrapped log."""
        return tuple(getattr(self.inner, "processors", ()))

    def upload(self, path: os.PathLike[str] | str, ti: Any = None) -> None:
        """Hand a file of another executor's task, or of a trigger, to the wrapped log; without one, it stays."""
        if self.inner is not None:
            self.inner.upload(path, ti)

    def read(self, relative_path: str, ti: TaskInstance) -> tuple[list[str], list[str] | None]:
        """Return where the log was read, and its text by source."""
        sources, streams = self.stream(relative_path, ti)
        return sources, ["\n".join(stream) for stream in streams] or None

    def stream(self, relative_path: str, ti: TaskInstance) -> Answer:
        """Return where the log was read, and its lines by source; no lines where Airflow reads the same elsewhere."""
        # Airflow imports this module while it configures logging, also in tasks: the tables come when they are needed.
        from airflow.utils.state import State, TaskInstanceState

        from edge_otel import log_text
        from edge_otel.models.database import DatabaseFailure

        if ti.state == TaskInstanceState.RUNNING:
            return NOTHING
        finished = ti.state not in State.unfinished
        try:
            job_id = log_text.key(str(ti.id), relative_path)
            stored = log_text.look(job_id)
            if stored is None and (before := log_text.id_of_try(ti)) is not None:
                job_id, stored = before, log_text.look(before)
        except DatabaseFailure as failure:
            return [f"edge-otel: the log store cannot be reached: {failure.orig}"], []
        if stored is None:
            return self._inner(relative_path, ti)
        notes = [] if stored.fault is None else [f"edge-otel: {stored.fault}"]
        if finished and stored.uploaded and self.inner is not None:
            sources, found = self._inner(relative_path, ti)
            notes += sources
            if found:
                return notes, found
        held = log_text.held(job_id, stored.lengths, self._folder.base / relative_path)
        if held == stored.lengths:
            if stored.fault is None:
                log_text.clear(self._folder.base / relative_path)
            return notes, []
        sources = [*notes, "edge-otel: the database"]
        if not finished:
            # Airflow reads its own files too.
            return sources, [log_text.lines(log_text.stored(job_id, held, whole=False))]
        beside = self._beside(relative_path)
        return [*sources, *map(str, beside)], [
            log_text.lines(log_text.stored(job_id)),
            *(log_text.lines(log_text.in_file(path)) for path in beside),
        ]

    def _beside(self, relative_path: str) -> list[Path]:
        """Return the other files of the log (what its triggers logged), which Airflow passes over now."""
        from edge_otel import log_text

        path = self._folder.base / relative_path
        base = self._folder.base.resolve()
        found = (one for one in path.parent.glob(f"{path.name}.*") if one.suffix != log_text.FAULT_SUFFIX)
        return sorted(one for one in found if base in one.resolve().parents)

    def _inner(self, relative_path: str, ti: TaskInstance) -> Answer:
        if self.inner is None:
            return NOTHING
        from edge_otel import log_text

        read = getattr(self.inner, "stream", None) or self.inner.read
        try:
            sources, found = read(relative_path, ti)
        except Exception as failure:
            log.warning("The remote log cannot be read: %s", failure, exc_info=True)
            return [f"edge-otel: the remote log cannot be read: {failure}"], []
        return sources, [log_text.lines([one]) if isinstance(one, str) else one for one in found or []]


def inner_folder(remote_base_log_folder: str) -> str | None:
    """Return the folder that an ``edge+…://`` one wraps; None where it wraps none."""
    return remote_base_log_folder.removeprefix("edge+") if remote_base_log_folder.startswith("edge+") else None


@contextmanager
def settings_of_inner(folder: str | None) -> Iterator[None]:
    """Let Airflow's configuration name this remote log folder, or none. The environment is stronger than its files."""
    values = {"REMOTE_LOGGING": str(folder is not None), "REMOTE_BASE_LOG_FOLDER": folder or ""}
    overrides = {f"AIRFLOW__LOGGING__{key}": value for key, value in values.items()}
    before = {key: os.environ.get(key) for key in overrides}
    os.environ.update(overrides)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def configured() -> Any:
    """Return Airflow's remote log, or None."""
    from airflow.logging_config import get_remote_task_log

    return get_remote_task_log()


def sink() -> Any:
    """Return the RemoteLogIO that finished logs are uploaded to; None where there is none that can have them."""
    remote = configured()
    inner = remote.inner if isinstance(remote, EdgeRemoteLog) else remote
    if why := unfit(inner):
        log.warning("Logs of edge workers are not uploaded: %s", why)
        return None
    return inner


def unfit(remote: Any) -> str | None:
    """Return why logs cannot be uploaded to a RemoteLogIO, or None: it must append the file that it is given."""
    why = {
        "CloudWatchRemoteLogIO": "takes lines from within tasks only, and removes a file that it is given unread",
        "StackdriverRemoteLogIO": "takes lines from within tasks only, and removes a file that it is given unread",
        "CloudLoggingRemoteLogIO": "takes lines from within tasks only, and removes a file that it is given unread",
        "HdfsRemoteLogIO": "overwrites what it has with what comes later",
    }.get(type(remote).__name__)
    if type(remote).__name__ in ("ElasticsearchRemoteLogIO", "OpensearchRemoteLogIO") and (
        remote.write_stdout or not getattr(remote, "write_to_es", getattr(remote, "write_to_opensearch", False))
    ):
        why = "writes each attempt anew to its standard output, and keeps no file; set its write_to option alone"
    return (
        f"{type(remote).__name__} {why}. Use edge:// or a remote log that keeps files, such as edge+s3://."
        if why
        else None
    )
