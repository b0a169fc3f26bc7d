"""Remote logs that do not say whether an upload has arrived, or never come to an end with it."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest
from logged import Task

from edge_otel.api import log_doubt, log_upload
from edge_otel.models import log_sinks
from edge_otel.settings import LogFolder

P = "a/attempt=1.log"
HERE = f"s3://b/{P}"


@pytest.mark.parametrize(
    ("sources", "found", "before", "expected"),
    [
        ([], None, "", False),
        ([HERE], ["one\ntwo\n"], "", True),
        ([HERE], ["one\r\ntwo"], "", True),
        ([HERE], ["one\n"], "one\n", False),
        ([HERE], ["Could not read logs from there"], "one\n", "unclear"),
        ([HERE], ["Could not read logs from there"], "", "unclear"),
        ([f"{HERE}.trigger.7.log"], ["one\ntwo\n"], "", False),
        ([HERE, f"{HERE}.trigger.7.log"], ["one\n", "one\ntwo\n"], "one\n", False),
        (["somewhere"], ["one\ntwo\n"], "", True),
        (["from host"], [object(), object()], "", "unclear"),
    ],
)
def test_a_remote_log_is_asked_whether_it_has_an_upload(sources, found, before, expected):
    if expected == "unclear":
        with pytest.raises(log_doubt.Unclear):
            log_doubt.has(sources, found, P, "two\n", before, 0)
    else:
        assert log_doubt.has(sources, found, P, "two\n", before, 0) is expected


@pytest.mark.parametrize(("there", "expected"), [(600, False), (1600, True)])
def test_a_log_that_repeats_itself_is_not_taken_for_its_own_beginning(there, expected):
    assert log_doubt.has([HERE], ["tick\n" * there], P, "tick\n" * 400, "tick\n" * 50, 1600 * 4) is expected


class HangingSink:
    """A remote log that hangs with its first log until ``go`` is set, and takes others."""

    delete_local_copy = False

    def __init__(self, folder):
        self.base_log_folder = folder
        self.hangs = threading.Event()
        self.go = threading.Event()

    def upload(self, path, ti=None):
        if not self.hangs.is_set():
            self.hangs.set()
            self.go.wait(60)
        (self.base_log_folder / path).unlink()


class ConnectingSink:
    """A remote log that makes a connection for its first log, and loses the third log."""

    delete_local_copy = False

    def __init__(self, folder):
        self.base_log_folder = folder
        self.connection = None
        self.used = []

    def upload(self, path, ti=None):
        if self.connection is None:
            self.connection = 1 + max(self.used, default=0)
        self.used.append(self.connection)
        if len(self.used) != 3:
            (self.base_log_folder / path).unlink()

    def read(self, path, ti):
        return [], None


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_connection_is_kept_for_the_next_upload_but_not_after_one_that_failed(database, tmp_path, monkeypatch):
    monkeypatch.setattr(log_upload, "INTERVAL", 0.02)
    monkeypatch.setattr(log_upload, "AWAY", 0.02)
    monkeypatch.setattr(log_sinks, "SOON", timedelta(0))
    monkeypatch.setattr(log_sinks, "LATE", timedelta(0))
    sink = ConnectingSink(tmp_path)
    uploader = log_upload.Uploader(sink, LogFolder(tmp_path / "logs", 0o755, 0o644))

    async def upload():
        uploader.start()
        try:
            async with asyncio.timeout(30):
                for _ in range(3):
                    task = Task(database, b"one\n", ends=True)
                    while task.row.upload != "done":
                        await asyncio.sleep(0.02)
        finally:
            await uploader.stop()

    asyncio.run(upload())
    assert sink.used == [1, 1, 1, 2]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_upload_that_never_ends_keeps_others_waiting_only_for_so_long(database, tmp_path, monkeypatch):
    monkeypatch.setattr(log_upload, "PATIENCE", timedelta(seconds=0.3))
    monkeypatch.setattr(log_upload, "LEASE", timedelta(seconds=0.4))
    monkeypatch.setattr(log_upload, "AWAY", 0.1)
    sink = HangingSink(tmp_path)
    uploader = log_upload.Uploader(sink, LogFolder(tmp_path / "logs", 0o755, 0o644))
    Task(database, b"one\n", ends=True)

    async def upload():
        uploader.start()
        try:
            async with asyncio.timeout(30):
                while not sink.hangs.is_set():
                    await asyncio.sleep(0.02)
                second = Task(database, b"one\n", ends=True)
                while second.row.upload != "done":
                    await asyncio.sleep(0.02)
        finally:
            sink.go.set()
            await uploader.stop()

    asyncio.run(upload())
