"""The file that Airflow's FileTaskHandler reads: written once, whole, and nowhere else."""

from __future__ import annotations

import hashlib
import json
import logging
import stat
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from rows import NOW, claim, queue_job, register
from sqlalchemy import select

from demo.wait import wait_for
from edge_otel import log_text
from edge_otel.api import log_files, log_sweep
from edge_otel.api.log_files import Writer
from edge_otel.api.log_sweep import Sweep
from edge_otel.models import jobs, logs, upkeep
from edge_otel.models.tables import Job, Log, Worker
from edge_otel.settings import LogFolder
from edge_otel.state import JobState

PATH = "dag_id=dag/run_id=run/task_id=task/attempt=1.log"


@pytest.fixture
def folder(tmp_path):
    """An empty log folder with permissions that are not the process's own."""
    return LogFolder(tmp_path / "logs", 0o2750, 0o640)


def run_job(database, text, *, job_id=None, log_path=PATH, **end):
    """Let worker ``w`` run a job that logs ``text``, and return its id."""
    with database() as session:
        worker = session.get(Worker, "w") or register(session, "w", NOW)
        job_id = queue_job(session, NOW, log_path=log_path, **({"id": job_id} if job_id else {}))
        job = claim(session, worker, NOW)
        logs.append(session, job, job.claim, 0, text)
        jobs.record_report(job, JobState.RUNNING, job.claim, NOW)
        jobs.record_report(job, JobState.SUCCESS, job.claim, NOW, **end)
    return job_id


def complete(database, job_id):
    """Return whether the row says that the file stands."""
    with database() as session:
        return session.get(Job, job_id).log_complete


def said_beside(folder):
    """Return what a file beside the log says that is wrong with it; None where there is no such file."""
    file = folder.base / f"{PATH}.fault"
    return file.read_text() if file.exists() else None


def test_a_finished_jobs_log_is_written_with_airflows_permissions(database, folder):
    job_id = run_job(database, b"hello\n", log_length=6, log_sha256=hashlib.sha256(b"hello\n").hexdigest())
    Writer(folder).finalise(job_id)
    target = folder.base / PATH
    assert target.read_bytes() == b"hello\n"
    assert complete(database, job_id)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert stat.S_IMODE(target.parent.stat().st_mode) == 0o2750
    assert list(target.parent.iterdir()) == [target]


def test_a_file_that_stands_is_not_written_again(database, folder):
    job_id = run_job(database, b"hello\n")
    Writer(folder).finalise(job_id)
    (folder.base / PATH).write_text("changed")
    Writer(folder).finalise(job_id)
    assert (folder.base / PATH).read_text() == "changed"


def test_a_log_whose_bytes_are_not_all_here_is_written_as_far_as_it_is_and_is_not_complete(database, folder):
    job_id = run_job(database, b"\nel", log_length=6)
    Writer(folder).finalise(job_id)
    assert (folder.base / PATH).read_bytes() == b"\n"
    assert not complete(database, job_id)
    with database() as session:
        logs.append(session, jobs.lock(session, job_id), 1, 3, b"lo\n")
    Writer(folder).finalise(job_id)
    assert (folder.base / PATH).read_bytes() == b"\nello\n"
    assert complete(database, job_id)


def test_the_log_of_a_job_that_was_settled_in_its_workers_place_is_written_by_the_sweep(database, folder):
    with database() as session:
        worker = register(session, "w", NOW)
        job_id = queue_job(session, NOW, log_path=PATH)
        job = claim(session, worker, NOW)
        jobs.record_report(job, JobState.RUNNING, 1, NOW)
        logs.append(session, job, 1, 0, b"last words\n")
        assert upkeep.settle(session, job_id, 1, JobState.LOST, "gone", NOW)
    sweep = Sweep(Writer(folder), logs.Homes(), timedelta())
    sweep.write()
    assert (folder.base / PATH).read_bytes() == b"last words\n"
    assert not complete(database, job_id)
    assert "bytes 11 on have not come from edge worker w" in said_beside(folder)
    with database() as session:
        job = jobs.lock(session, job_id)
        logs.append(session, job, 1, 11, b"it lives\n")
        jobs.record_report(job, JobState.SUCCESS, 1, NOW, exit_code=0, log_length=20)
    sweep.write()
    assert (folder.base / PATH).read_bytes() == b"last words\nit lives\n"
    assert said_beside(folder) is None
    with database() as session:
        job = session.get(Job, job_id)
        assert (job.state, job.exit_code, job.log_ends["1"][0], job.log_complete) == (JobState.LOST, 0, 20, True)


def test_what_is_missing_is_said_beside_the_file_and_that_file_goes_when_it_has_come(database, folder):
    job_id = run_job(database, b"hel", log_length=6)
    Writer(folder).finalise(job_id)
    line = json.loads(said_beside(folder))
    assert line["event"] == "edge-otel: bytes 3 to 5 have not come from edge worker w."
    assert (line["level"], datetime.fromisoformat(line["timestamp"]).tzinfo) == ("warning", UTC)
    assert stat.S_IMODE((folder.base / f"{PATH}.fault").stat().st_mode) == 0o640
    with database() as session:
        logs.append(session, jobs.lock(session, job_id), 1, 3, b"lo\n")
    Writer(folder).finalise(job_id)
    assert said_beside(folder) is None


def test_a_log_is_not_complete_while_an_earlier_run_of_its_task_has_sent_a_part_alone(database, folder):
    job_id = run_job(database, b"bef", log_length=7)
    run_job(database, b"after\n", job_id=job_id, log_length=6)
    Writer(folder).finalise(job_id)
    assert not complete(database, job_id)
    assert "bytes 3 to 6 of run 1 have not come" in said_beside(folder)
    with database() as session:
        logs.append(session, jobs.lock(session, job_id), 1, 3, b"ore\n")
    Writer(folder).finalise(job_id)
    assert complete(database, job_id)
    assert (folder.base / PATH).read_bytes() == b"before\nafter\n"


def test_a_log_that_is_not_complete_is_written_again_when_there_is_a_quarter_more_of_it(database, folder):
    job_id = run_job(database, b"\n" * 10, log_length=100)
    writer = Writer(folder)
    for more, written in ((10, 10), (11, 10), (12, 10), (13, 13)):
        with database() as session:
            logs.append(session, jobs.lock(session, job_id), 1, 10, b"\n" * (more - 10))
        Sweep(writer, logs.Homes(), timedelta()).write()
        assert (folder.base / PATH).stat().st_size == written


def test_logs_that_are_not_complete_do_not_keep_others_waiting(database, folder, monkeypatch):
    monkeypatch.setattr(log_sweep, "_PAGE", 2)
    for number in range(5):
        run_job(database, b"hel", log_path=f"{number}.log", log_length=6)
    whole = [run_job(database, b"hello\n", log_path=f"whole-{number}.log") for number in range(3)]
    Sweep(Writer(folder), logs.Homes(), timedelta()).write()
    assert all(complete(database, job_id) for job_id in whole)
    assert len(list(folder.base.glob("*.log"))) == 8


def test_what_a_server_left_behind_that_was_killed_over_a_log_is_gone_when_the_log_is_written(database, folder):
    job_id = run_job(database, b"hello\n")
    left = (folder.base / PATH).with_name(f".{job_id}-left")
    left.parent.mkdir(parents=True)
    left.touch()
    Writer(folder).finalise(job_id)
    assert list(left.parent.iterdir()) == [folder.base / PATH]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("length", [6, 9])
def test_servers_that_write_one_log_at_once_do_not_take_it_for_one_that_cannot_be_written(
    database, folder, caplog, length
):
    wrong = hashlib.sha256(b"other\n").hexdigest()
    writers = [Writer(folder) for _ in range(4)]
    for number in range(20):
        job_id = run_job(database, b"hello\n", log_path=f"{number}.log", log_length=length, log_sha256=wrong)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda writer, job_id=job_id: writer.finalise(job_id), writers))
        with database() as session:
            assert session.get(Log, job_id).fault is not None, "what was said of it has been taken back"
    assert "cannot be written" not in caplog.text
    for writer in writers:
        writer.close()


def test_of_a_run_that_is_not_whole_the_file_has_whole_lines(database, folder):
    job_id = run_job(database, b"one\ntw", log_length=9)
    run_job(database, b"three", job_id=job_id, log_length=5)
    Writer(folder).finalise(job_id)
    assert (folder.base / PATH).read_bytes() == b"one\nthree"
    assert json.loads(said_beside(folder))["bytes_by_run"] == {"1": 4, "2": 5}
    with database() as session:
        logs.append(session, jobs.lock(session, job_id), 1, 6, b"o\n!")
    Writer(folder).finalise(job_id)
    assert (folder.base / PATH).read_bytes() == b"one\ntwo\n!three"


def test_the_sweep_tries_again_what_could_not_be_written(database, folder, caplog, monkeypatch):
    folder.base.write_text("a file stands in the way")
    job_id = run_job(database, b"hello\n")
    sweep = Sweep(Writer(folder), logs.Homes(), timedelta())
    sweep.write()
    assert "cannot be written" in caplog.text
    folder.base.unlink()
    sweep.write()
    assert not folder.base.exists(), "not at once: a log may be large"
    monkeypatch.setattr(log_files, "AGAIN", 0.0)
    sweep.write()
    assert (folder.base / PATH).read_bytes() == b"hello\n"
    assert complete(database, job_id)


def test_a_job_without_a_byte_of_log_gets_no_file(database, folder):
    job_id = run_job(database, b"")
    Writer(folder).finalise(job_id)
    assert not folder.base.exists()
    assert complete(database, job_id)


def test_a_running_job_and_one_that_is_gone_write_nothing(database, folder):
    with database() as session:
        worker = register(session, "w", NOW)
        job_id = queue_job(session, NOW)
        claim(session, worker, NOW)
    Writer(folder).finalise(job_id)
    Writer(folder).finalise("0" * 36)
    assert not folder.base.exists()


def test_a_task_that_was_deferred_has_the_logs_of_all_its_runs_in_one_file(database, folder):
    job_id = run_job(database, b"before\n")
    Writer(folder).finalise(job_id)
    run_job(database, b"after\n", job_id=job_id, log_length=6)
    Writer(folder).finalise(job_id)
    assert (folder.base / PATH).read_bytes() == b"before\nafter\n"


def test_a_checksum_that_differs_is_reported_and_the_log_is_kept(database, folder, caplog):
    job_id = run_job(database, b"hello\n", log_length=6, log_sha256="0" * 64)
    with caplog.at_level(logging.ERROR, "edge_otel"):
        Writer(folder).finalise(job_id)
    assert "checksum" in caplog.text
    assert "checksum" in said_beside(folder)
    assert (folder.base / PATH).read_bytes() == b"hello\n"


@pytest.mark.parametrize("path", ["../outside.log", "/etc/outside.log", "a/../../outside.log", "..", "", "a/.."])
def test_a_path_that_is_not_below_the_log_folder_is_refused(database, folder, caplog, path):
    job_id = run_job(database, b"hello\n", log_path=path)
    with caplog.at_level(logging.ERROR, "edge_otel"):
        Writer(folder).finalise(job_id)
    assert caplog.records
    assert [p for p in folder.base.parent.rglob("*") if p.is_file()] == []
    assert not complete(database, job_id)


def test_a_link_inside_the_log_folder_does_not_lead_out_of_it(database, folder, tmp_path):
    folder.base.mkdir()
    (tmp_path / "outside").mkdir()
    (folder.base / "dag_id=dag").symlink_to(tmp_path / "outside")
    Writer(folder).finalise(run_job(database, b"hello\n"))
    assert list((tmp_path / "outside").rglob("*")) == []


def test_a_folder_that_cannot_be_written_is_reported_and_nothing_raised(database, folder, caplog):
    folder.base.write_text("a file stands in the way")
    job_id = run_job(database, b"hello\n")
    with caplog.at_level(logging.ERROR, "edge_otel"):
        Writer(folder).finalise(job_id)
    assert "cannot be written" in caplog.text
    assert not complete(database, job_id)
    folder.base.unlink()
    Writer(folder).finalise(job_id)
    assert (folder.base / PATH).read_bytes() == b"hello\n"


def test_a_log_whose_file_cannot_be_written_is_for_the_remote_log_all_the_same(database, folder):
    folder.base.write_text("a file stands in the way")
    job_id = run_job(database, b"hello\n", log_length=6)
    Writer(folder).finalise(job_id)
    assert not complete(database, job_id)
    with database() as session:
        assert session.get(Log, job_id).upload == "due"


@pytest.fixture
def large(monkeypatch):
    """Every log counts as large, and is read a chunk at a time."""
    monkeypatch.setattr(log_files, "INLINE", 10)
    monkeypatch.setattr(logs, "READ_CHUNKS", 1)


def run_long_job(database, chunks=60):
    """Let a job end that logged so many chunks, and return its id."""
    job_id = run_job(database, b"0")
    with database() as session:
        job = jobs.lock(session, job_id)
        for chunk in range(1, chunks):
            logs.append(session, job, 1, chunk, str(chunk % 10).encode())
    return job_id


def test_a_large_log_is_written_in_the_background(database, folder, large):
    job_id = run_long_job(database)
    writer = Writer(folder)
    writer.finalise(job_id)
    wait_for(lambda: complete(database, job_id), "the log to be written", timeout=20, pause=0.01)
    assert (folder.base / PATH).read_bytes() == b"0123456789" * 6
    writer.close()


def test_a_try_that_is_queued_under_the_id_of_one_whose_log_is_just_being_written_gets_none_of_it(
    database, folder, large
):
    job_id = run_long_job(database)
    writer = Writer(folder)
    sweep = Sweep(writer, logs.Homes(), timedelta())
    paths = [PATH, *(PATH.replace("attempt=1", f"attempt={number}") for number in range(2, 6))]
    for number, path in enumerate(paths[1:], 2):
        writer.finalise(job_id)
        run_job(database, f"{number}\n".encode() * 20, job_id=job_id, log_path=path)

    def whole():
        sweep.write()
        with database() as session:
            return all(session.scalars(select(Job.log_complete)))

    wait_for(whole, "all logs to be written", timeout=20, pause=0.01)
    writer.close()
    assert {path: (folder.base / path).read_bytes() for path in paths} == {
        PATH: b"0123456789" * 6,
        **{path: f"{number}\n".encode() * 20 for number, path in enumerate(paths[1:], 2)},
    }


def test_what_comes_while_a_large_log_is_written_is_in_the_file_in_the_end(database, folder, large):
    job_id = run_long_job(database)
    writer = Writer(folder)
    sweep = Sweep(writer, logs.Homes(), timedelta())
    for more in range(60, 80):
        writer.finalise(job_id)
        with database() as session:
            logs.append(session, jobs.lock(session, job_id), 1, more, str(more % 10).encode())

    def whole():
        sweep.write()
        return complete(database, job_id)

    wait_for(whole, "the whole log to be written", timeout=20, pause=0.01)
    assert (folder.base / PATH).read_bytes() == b"0123456789" * 8
    writer.close()
    assert [file.name for file in (folder.base / PATH).parent.iterdir()] == ["attempt=1.log"]


def test_a_server_that_ends_stops_in_the_middle_of_a_large_log_and_leaves_nothing_behind(database, folder, large):
    job_id = run_long_job(database, 600)
    writer = Writer(folder)
    writer.finalise(job_id)
    begun = (folder.base / PATH).parent
    wait_for(lambda: begun.exists() and any(begun.iterdir()), "it to begin", timeout=20, pause=0.001)
    writer.close()
    assert list(begun.iterdir()) == []
    assert not complete(database, job_id)


def test_little_of_a_large_log_is_in_memory(database, folder):
    size, chunk = 48 * 1024 * 1024, 512 * 1024
    job_id = run_job(database, b"")
    line = b"x" * 1023 + b"\n"
    with database() as session:
        job = jobs.lock(session, job_id)
        for offset in range(0, size, chunk):
            logs.append(session, job, 1, offset, line * (chunk // len(line)))
    writer = Writer(folder)
    tracemalloc.start()
    try:
        writer.finalise(job_id)
        wait_for(lambda: complete(database, job_id), "the log to be written", timeout=60, pause=0.01)
        assert sum(len(text) for text in log_text.stored(job_id)) == size
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        writer.close()
    assert (folder.base / PATH).stat().st_size == size
    assert peak < 16 * 1024 * 1024


def test_the_sweep_deletes_what_is_too_old(database, folder):
    job_id = run_job(database, b"hello\n")
    Writer(folder).finalise(job_id)
    with database() as session:
        session.delete(session.get(Job, job_id))
    only_here = logs.Homes(only_here=True)
    Sweep(Writer(folder), only_here, timedelta(days=1)).purge()
    with database() as session:
        assert b"".join(logs.read(session, job_id)) == b"hello\n"
    Sweep(Writer(folder), only_here, timedelta()).purge()
    with database() as session:
        assert b"".join(logs.read(session, job_id)) == b""
