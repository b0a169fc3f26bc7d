"""Tries under one id, each with its own log: who reads them, where they go, and when they are deleted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow_rows import put_task_instance, workload_of
from log_tries import PATHS, Tries
from rows import NOW, claim, register
from sqlalchemy import select

from edge_otel.api import log_export
from edge_otel.api.log_files import Writer
from edge_otel.api.log_sweep import Sweep
from edge_otel.models import jobs, log_sinks, logs, upkeep
from edge_otel.models.tables import Job, Log, LogChunk, Worker
from edge_otel.settings import LogFolder
from edge_otel.state import JobState, WorkerState

SECOND = timedelta(seconds=1)


@pytest.fixture
def tries(database, api, token):
    """A task."""
    return Tries(database, api, token)


@pytest.mark.parametrize("homes", [logs.Homes(uploads=True, exports=True), logs.Homes(only_here=True)])
def test_logs_of_all_tries_go_when_their_jobs_are_gone_and_their_time_has_come(tries, database, homes):
    first = tries.run(1, b"one\n")
    tries.lose(first)
    second = tries.run(2, b"two\n")
    tries.end(second, 4)
    sweep = tries.sweep(homes)
    sweep.purge()
    with database() as session:
        old = upkeep.outdated(session, None, NOW + SECOND, NOW + SECOND)
        assert old == [tries.id], "the other log may still come"
        old = upkeep.outdated(session, None, NOW + SECOND, NOW + upkeep.INCOMPLETE_LOG_KEPT + SECOND)
        assert len(old) == 2
        upkeep.delete_finished(session, old, NOW)
        assert session.query(Log).count() == 2
        for log in session.scalars(select(Log)):
            assert log.upload == "due"
            log.upload, log.export_due = "done", False
    sweep.purge()
    with database() as session:
        assert (session.query(Log).count(), session.query(LogChunk).count()) == (0, 0)


@pytest.mark.usefixtures("no_task_instances")
@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_each_try_is_uploaded_to_its_own_path_once_the_task_is_not_coming_back_under_it(tries, database):
    first = tries.run(1, b"one\n")
    tries.end(first, 4)
    with database() as session:
        put_task_instance(session, "queued", ti_id=UUID(tries.id))
    later = datetime.now(UTC) + timedelta(hours=1)

    def due(at):
        with database() as session:
            uploads = log_sinks.claim_uploads(session, at, at + SECOND, 9)
        return {(upload.path, upload.known_as, upload.about["try_number"], *upload.aim) for upload in uploads}

    assert due(later) == set()
    second = tries.run(2, b"two\n")
    assert due(later + timedelta(hours=1)) == {(PATHS[1], tries.id, 1, first)}
    tries.end(second, 4)
    with database() as session:
        session.execute(TaskInstance.__table__.update().values(state="success"))
    assert (PATHS[2], tries.id, 2, second) in due(later + timedelta(hours=2))


@pytest.mark.parametrize("sent", [True, False])
def test_what_was_being_sent_when_the_log_got_its_own_key_is_noted_there_and_sent_once(tries, database, sent):
    first = tries.run(1, b"one\ntwo\n")
    tries.lose(first)
    with database() as session:
        (export,) = log_sinks.claim_exports(session, NOW, NOW + SECOND, 9)
    second = tries.run(2, b"2\n")
    with database() as session:
        log_sinks.note_exported(session, export, {first: (4, False)} if sent else {}, NOW)
    with database() as session:
        # Nobody has to wait for the end of the lease.
        exports = log_sinks.claim_exports(session, NOW, NOW + 2 * SECOND, 9)
    assert {export.known_as for export in exports} == {tries.id}
    assert {export.about["try_number"]: export.places for export in exports} == {
        1: {first: (4, False)} if sent else {},
        2: {},
    }
    assert {export.carrier["traceparent"][3:35] for export in exports} == {f"{1:032}", f"{2:032}"}
    assert second > first


def test_lines_of_a_try_are_not_sent_as_those_of_the_one_before_which_was_just_looked_at(tries, database):
    tries.lose(tries.run(1, b"one\n"))
    with database() as session:
        (export,) = log_sinks.claim_exports(session, NOW, NOW + SECOND, 9)
    part, _ = log_export._read_log(export, log_export.REQUEST_BYTES)
    assert [line.text for _, lines in part.batch for line in lines] == [b"one"]
    tries.run(2, b"two\n")
    part, _ = log_export._read_log(export, log_export.REQUEST_BYTES)
    assert (part.batch, part.places, part.seen) == ([], {}, None)


@pytest.mark.usefixtures("no_task_instances")
@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_a_task_that_is_lost_before_airflow_knew_it_running_and_queued_again_by_the_executor(
    executor, database, tmp_path
):
    with database() as session:
        ti = put_task_instance(session, "queued")
        worker = register(session, "w", datetime.now(UTC))

    def run(number, text):
        workload = workload_of(ti).model_copy(update={"log_path": PATHS[number]})
        workload.ti.try_number = number
        with database() as session:
            executor.queue_workload(workload, session)
        with database() as session:
            job = claim(session, worker, datetime.now(UTC))
            jobs.record_report(job, JobState.RUNNING, job.claim, datetime.now(UTC))
            logs.append(session, job, job.claim, 0, text)

    def live(number):
        _, text = executor.get_task_log(SimpleNamespace(id=ti.id, try_number=number), number)
        return "".join(text)

    run(1, b"one\n")
    assert live(1) == "one\n"
    with database() as session:
        worker = session.get(Worker, "w")
        worker.state = WorkerState.UNKNOWN
        long_ago = datetime.now(UTC) - timedelta(hours=1)
        worker.last_heartbeat = worker.state_since = session.get(Job, str(ti.id)).changed_at = long_ago
    executor.sync()
    with database() as session:
        assert session.get(Job, str(ti.id)).state == JobState.LOST
        session.get(Worker, "w").state = WorkerState.IDLE
    run(2, b"two\n")
    assert live(2) == "two\n"
    Sweep(Writer(LogFolder(tmp_path, 0o755, 0o644)), logs.Homes(), timedelta()).write()
    assert (tmp_path / PATHS[1]).read_bytes() == b"one\n"
    assert not (tmp_path / PATHS[2]).exists()
