"""Which logs are uploaded and exported next, and by whom."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import airflow_rows
import pytest
from logged import Task
from rows import NOW

from edge_otel.api import log_export, log_upload
from edge_otel.models import log_sinks, upkeep
from edge_otel.models.session import database_now
from edge_otel.models.tables import Log
from edge_otel.settings import LogFolder
from edge_otel.state import JobState

SOON = NOW + timedelta(minutes=2)


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_logs_of_deferred_tasks_take_nobodys_place_and_a_look_touches_few(database, monkeypatch, no_task_instances):
    monkeypatch.setattr(log_sinks, "LOOK", 5)
    now = datetime.now(UTC)
    deferred = [Task(database, b"one\n", ends=True) for _ in range(6)]
    with database() as session:
        for task in deferred:
            airflow_rows.put_task_instance(session, "deferred", ti_id=UUID(task.id))
            # For an hour now.
            session.get(Log, task.id).changed_at = now - timedelta(hours=1)
    over = [Task(database, b"one\n", ends=True) for _ in range(3)]
    later = now + timedelta(seconds=30)

    def look(at):
        with database() as session:
            return [upload.job_id for upload in log_sinks.claim_uploads(session, at, at + timedelta(minutes=2), 2)]

    assert look(later) == []
    assert sum(task.row.upload_at is not None for task in (*deferred, *over)) == 5
    assert look(later) == [task.id for task in over[:2]]
    assert look(later) == [over[2].id]
    # The longer a task is deferred, the less often its log is looked at.
    waits = {(task.row.upload_at - later).total_seconds() for task in deferred}
    assert waits == {300}


def test_lines_that_come_while_others_are_sent_are_due_afterwards(database):
    task = Task(database, b"one\n")
    with database() as session:
        (export,) = log_sinks.claim_exports(session, NOW, SOON, 9)
        seen = log_sinks.stored(session, task.id)
    with database() as session:
        assert log_sinks.claim_exports(session, NOW, SOON, 9) == []
    task.log(b"two\n")
    with database() as session:
        log_sinks.note_exported(session, export, {1: (4, False)}, NOW)
        log_sinks.rest_export(session, task.id, {1: (4, False)}, seen)
    with database() as session:
        (again,) = log_sinks.claim_exports(session, NOW, SOON, 9)
    assert again.places == {1: (4, False)}


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_who_lost_the_lease_of_an_upload_notes_nothing(database):
    task = Task(database, b"one\n", ends=True)
    now = datetime.now(UTC)
    with database() as session:
        (late,) = log_sinks.claim_uploads(session, now, now + timedelta(seconds=1), 9)
    with database() as session:
        (upload,) = log_sinks.claim_uploads(session, now + timedelta(seconds=2), SOON, 9)
    assert (late.doubtful, upload.doubtful) == (False, True)
    for note in (
        log_sinks.note_uploaded,
        partial(log_sinks.renew_upload, lease=now),
        partial(log_sinks.postpone_upload, now=now),
    ):
        with database() as session:
            note(session, late)
        assert (task.row.upload, task.row.upload_at) == ("begun", SOON)
    with database() as session:
        log_sinks.note_uploaded(session, upload)
    assert (task.row.upload, task.row.uploaded) == ("done", {"done": {"1": 4}})


def test_who_lost_the_lease_of_lines_notes_nothing(database):
    task = Task(database, b"one\n")
    with database() as session:
        (late,) = log_sinks.claim_exports(session, NOW, NOW + timedelta(seconds=1), 9)
    with database() as session:
        (export,) = log_sinks.claim_exports(session, NOW + timedelta(seconds=2), NOW + timedelta(seconds=9), 9)
        log_sinks.note_exported(session, late, {1: (1, False)}, NOW)
    assert task.row.exported == {}
    with database() as session:
        log_sinks.note_exported(session, export, {1: (4, False)}, NOW)
    assert task.row.exported == {"1": [4, False]}


@pytest.mark.parametrize("gone", [False, True])
def test_a_line_of_a_job_that_was_settled_waits_for_its_end_until_the_job_is_gone(database, gone):
    task = Task(database, b"one\nhal")
    with database() as session:
        upkeep.settle(session, task.id, 1, JobState.FAILED, "The worker is gone.", NOW)
    with database() as session:
        seen = log_sinks.stored(session, task.id)
        log_sinks.rest_export(session, task.id, {1: (4, False)}, seen)
    assert (seen.over, task.row.export_due) == (False, False)
    if gone:
        with database() as session:
            upkeep.delete_finished(session, [task.id], datetime.now(UTC))
    else:
        task.log(b"f\n")
        task.end()
    with database() as session:
        assert log_sinks.stored(session, task.id).over
    assert task.row.export_due


class FastClock(datetime):
    """A clock that is an hour fast."""

    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + timedelta(hours=1)


def test_a_server_whose_clock_is_an_hour_fast_takes_no_log_that_another_has(database, tmp_path, monkeypatch):
    task = Task(database, b"one\n", ends=True)
    with database() as session:
        now = database_now(session)
        assert abs(now - datetime.now(UTC)) < timedelta(seconds=5)
        log = session.get(Log, task.id)
        log.upload, log.upload_at, log.export_at = "begun", now + log_upload.LEASE, now + log_export.LEASE
    for module in (log_upload, log_export):
        monkeypatch.setattr(module, "datetime", FastClock)
    assert log_upload.Uploader(object(), LogFolder(tmp_path, 0o755, 0o644))._claim(9) == []
    assert log_export._read() == []
