"""Uploads finished logs to the remote log that Airflow is configured with: from the store, in the background, once.

A remote log appends what it is given, and does not say whether it has it. So an attempt is noted before it is made, and
the next one looks first whether that was enough.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import copy
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from edge_otel.api.log_doubt import Unclear, has, size
from edge_otel.errors import EdgeError
from edge_otel.log_text import fault_line
from edge_otel.models import log_sinks
from edge_otel.models.database import DatabaseFailure
from edge_otel.models.log_sinks import Upload
from edge_otel.models.session import database_now, hasty_session
from edge_otel.settings import LogFolder
from edge_otel.telemetry import counters

log = logging.getLogger(__name__)

INTERVAL, AWAY = 1.0, 5.0
"""Seconds between looks while there is nothing to upload, and while the remote log takes nothing."""
AT_A_TIME = 4
LARGE = 16 * 1024 * 1024
"""Bytes. Remote logs take a file into memory: of the larger ones there is one at a time."""
LEASE = timedelta(minutes=2)
"""Renewed while an upload goes on. If this server dies, its uploads wait so long for another."""
PATIENCE = timedelta(minutes=10)
"""For an upload that does not come to an end; it is tried again, here or elsewhere."""
DOUBT = timedelta(hours=1)
"""For so long a log waits of which the remote log does not say whether it has it."""
PIECE = 1024 * 1024
"""Bytes that are read from the store at once."""
END = 2000
"""Characters at the end of an upload by which it is known again."""

T = TypeVar("T")


class _NotTaken(EdgeError):
    """The remote log did not take it. Airflow's own lines above say why."""


class _Hangs(EdgeError):
    """Its thread is left behind; what it does yet, the next attempt finds."""


class Uploader:
    """One per process. Remote logs work in threads that may hang: nobody waits for their end."""

    def __init__(self, sink: Any, folder: LogFolder) -> None:
        """``sink``: a RemoteLogIO, or None where there is none to upload to."""
        self._sink = sink
        self._folder = folder
        self._sinks: list[Any] = []
        """Copies of it that nobody uses just now, at most as many as there were uploads at a time."""
        self._large = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def start(self) -> None:
        """Begin, where there is anything to do."""
        if self._sink is not None:
            self._task = asyncio.create_task(self._run(), name="edge-log-upload")

    async def stop(self) -> None:
        """End. An upload that is under way is looked at by whoever comes next."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            busy = False
            try:
                busy = await self._round()
            except Exception:
                log.warning("The look for logs to upload failed; the next comes soon.", exc_info=True)
            if self._failing:
                await asyncio.sleep(AWAY)
            elif not busy:
                await asyncio.sleep(INTERVAL)

    async def _round(self) -> bool:
        """Upload what is due; return whether there was anything. While the remote log takes nothing, one log tries."""
        uploads = await _in_thread(self._claim, 1 if self._failing else AT_A_TIME)
        if uploads:
            async with asyncio.TaskGroup() as group:
                attempts = [group.create_task(self._attempt(upload)) for upload in uploads]
            self._failing = not any(attempt.result() for attempt in attempts)
        return bool(uploads)

    def _claim(self, limit: int) -> list[Upload]:
        with hasty_session() as session:
            now = database_now(session)
            return log_sinks.claim_uploads(session, now, now + LEASE, limit)

    async def _attempt(self, upload: Upload) -> bool:
        """Try once, and note what came of it; return whether the remote log has it."""
        work = asyncio.create_task(self._in_turn(upload))
        end = datetime.now(UTC) + PATIENCE
        try:
            while not (await asyncio.wait([work], timeout=LEASE.total_seconds() / 4))[0] and datetime.now(UTC) < end:
                with contextlib.suppress(DatabaseFailure):
                    upload = await _in_thread(_renewed, upload)
        finally:
            work.cancel()
        failure = work.exception() if work.done() else _Hangs("The remote log has not answered for 10 minutes.")
        counters.LOG_UPLOADS.labels("failed" if failure else work.result()).inc()
        if failure is not None:
            log.warning("The log %s was not uploaded, and is tried again: %s", upload.path, failure)
        try:
            await _in_thread(_note, upload, failure is None)
        except DatabaseFailure as lost:
            log.warning("The log %s: what came of its upload cannot be noted: %s", upload.path, lost.orig)
        return failure is None

    async def _in_turn(self, upload: Upload) -> str:
        size = sum(upload.aim.values()) - sum(upload.done.values())
        async with self._large if size > LARGE else contextlib.nullcontext():
            return await _in_thread(self._upload, upload)

    def _upload(self, upload: Upload) -> str:
        """Give the remote log what it has not; return how that came about."""
        with tempfile.TemporaryDirectory(prefix="edge-upload-") as name, self._staged_in(Path(name).resolve()) as sink:
            file = (sink.base_log_folder / upload.path).resolve()
            if sink.base_log_folder not in file.parents:
                raise EdgeError(f"its path leads out of the log folder: {upload.path}")
            file.parent.mkdir(parents=True)
            end = _stage(upload, file)
            outcome = "found" if not file.stat().st_size or _has(sink, upload, end) else "done"
            if outcome == "done":
                sink.upload(upload.path, _task_instance(upload))
                if file.exists() and file.stat().st_size:
                    raise _NotTaken
        if getattr(self._sink, "delete_local_copy", False):
            (self._folder.base / upload.path).unlink(missing_ok=True)
        return outcome

    @contextlib.contextmanager
    def _staged_in(self, folder: Path) -> Iterator[Any]:
        """Yield the sink with a folder of ours, where it may remove or empty the file: that tells that it has it."""
        try:
            # They keep their connections, and take much longer to make new ones than for a log.
            sink = self._sinks.pop()
        except IndexError:
            sink = copy.copy(self._sink)
            if not hasattr(sink, "base_log_folder") or not hasattr(sink, "delete_local_copy"):
                raise EdgeError(f"{type(sink).__name__} is not made like Airflow's remote logs") from None
        sink.base_log_folder, sink.delete_local_copy = folder, True
        yield sink
        # One that failed is not used again: its credentials may have been replaced.
        self._sinks.append(sink)


def _has(sink: Any, upload: Upload, end: str) -> bool:
    """Return whether an earlier attempt has done it already."""
    if not upload.doubtful:
        return False
    sources, found = sink.read(upload.path, _task_instance(upload))
    try:
        before = _end_before(upload)
        return has(sources, found, upload.path, end, before, _size(upload) if before else 0)
    except Unclear:
        if datetime.now(UTC) - upload.changed_at < DOUBT:
            raise
        # Twice is better than not at all.
        return False


def _size(upload: Upload) -> int:
    """Return the size of the whole log after this attempt, as ``log_doubt`` measures it."""
    return sum(map(size, _texts(upload._replace(done={}))))


def _texts(upload: Upload) -> Iterator[str]:
    """Yield what the remote log has not, in pieces."""
    for claim, length in upload.aim.items():
        # What is no UTF-8 is written as Airflow shows it, for remote logs read text.
        decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        at = upload.done.get(claim, 0)
        while at < length:
            with hasty_session() as session:
                data = log_sinks.bytes_from(session, upload.job_id, claim, at, min(PIECE, length - at))
            if not data:
                raise EdgeError("its bytes are not in the store any more")
            at += len(data)
            yield decoder.decode(data, final=at >= length)


def _stage(upload: Upload, file: Path) -> str:
    """Write what the remote log has not into a file, as UTF-8; return the end of it."""
    end = ""
    with file.open("w", encoding="utf-8", newline="") as out:
        for text in _texts(upload):
            out.write(text)
            end = (end + text)[-END:]
        if upload.fault is not None and end:
            line = ("" if end.endswith("\n") else "\n") + fault_line(upload.fault, upload.changed_at)
            out.write(line)
            end = (end + line)[-END:]
    return end


def _end_before(upload: Upload) -> str:
    """Return how the log ends that was uploaded earlier."""
    if not any(upload.done.values()):
        return ""
    claim, length = max((claim, length) for claim, length in upload.done.items() if length)
    with hasty_session() as session:
        data = log_sinks.bytes_from(session, upload.job_id, claim, max(0, length - END), min(END, length))
    # Without the rest of a character at the beginning.
    return data.decode(errors="backslashreplace")[-END // 8 :]


def _task_instance(upload: Upload) -> Any:
    """Return what remote logs ask of a task instance; None for what is no task."""
    about = upload.about
    return SimpleNamespace(id=upload.known_as, **about) if about.get("try_number") else None


def _renewed(upload: Upload) -> Upload:
    with hasty_session() as session:
        lease = database_now(session) + LEASE
        log_sinks.renew_upload(session, upload, lease)
    return upload._replace(lease=lease)


def _note(upload: Upload, uploaded: bool) -> None:
    with hasty_session() as session:
        if uploaded:
            log_sinks.note_uploaded(session, upload)
        else:
            log_sinks.postpone_upload(session, upload, database_now(session))


async def _in_thread(work: Callable[..., T], *args: Any) -> T:
    """Return what comes of it, in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, failure: BaseException | None) -> None:
        if future.done():
            return
        if failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = work(*args)
        except BaseException as error:  # noqa: BLE001 - whoever awaits it has it
            failure = error
        with contextlib.suppress(RuntimeError):
            # The loop has ended.
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="edge-log-upload", daemon=True).start()
    return await future
