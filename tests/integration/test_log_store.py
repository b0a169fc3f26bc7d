"""Logs by byte range: every byte once and in order, whatever is repeated, cut or comes too early."""

from __future__ import annotations

import gzip
import io
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rows import NOW, claim, queue_job, register
from sqlalchemy import func, select

from edge_otel.errors import LogGap
from edge_otel.models import jobs, logs, upkeep
from edge_otel.models.packed import Packed
from edge_otel.models.tables import Job, Log, LogChunk, Worker
from edge_otel.state import JobState

SECOND = timedelta(seconds=1)


@pytest.fixture
def job_id(database):
    """The id of a job that worker ``w`` runs under claim 1."""
    with database() as session:
        worker = register(session, "w", NOW)
        job_id = queue_job(session, NOW)
        jobs.record_report(claim(session, worker, NOW), JobState.RUNNING, 1, NOW)
    return job_id


def append(session, job_id, offset, data):
    """Append to the job's log as a request does."""
    return logs.append(session, jobs.lock(session, job_id), 1, offset, data).cursor


def stored(database, job_id):
    """Return the whole log."""
    with database() as session:
        return b"".join(logs.read(session, job_id))


def test_ranges_in_order_make_the_log(database, job_id):
    with database() as session:
        assert append(session, job_id, 0, b"one\n") == 4
    with database() as session:
        assert append(session, job_id, 4, b"two\n") == 8
        assert logs.cursor(session, job_id, 1) == 8
    assert stored(database, job_id) == b"one\ntwo\n"


def test_a_repeat_changes_nothing(database, job_id):
    for _ in range(3):
        with database() as session:
            assert append(session, job_id, 0, b"one\n") == 4
    with database() as session:
        assert session.scalar(select(func.count()).select_from(LogChunk)) == 1
    assert stored(database, job_id) == b"one\n"


def test_of_an_overlap_only_the_new_part_is_stored(database, job_id):
    with database() as session:
        append(session, job_id, 0, b"one\ntwo")
        assert append(session, job_id, 4, b"two\nthree\n") == 14
        assert append(session, job_id, 4, b"two") == 14
    assert stored(database, job_id) == b"one\ntwo\nthree\n"


def test_a_gap_is_refused_with_the_cursor(database, job_id):
    with database() as session:
        append(session, job_id, 0, b"one\n")
    with database() as session, pytest.raises(LogGap) as refused:
        append(session, job_id, 5, b"x")
    assert refused.value.facts == {"cursor": 4}
    assert stored(database, job_id) == b"one\n"


def test_nothing_is_stored_of_an_empty_range(database, job_id):
    with database() as session:
        assert append(session, job_id, 0, b"") == 0
        assert session.scalar(select(func.count()).select_from(LogChunk)) == 0


def test_any_bytes_come_back_as_they_were(database, job_id):
    data = bytes(range(256)) * 5000
    with database() as session:
        append(session, job_id, 0, data)
    assert stored(database, job_id) == data


def test_each_claim_has_a_log_of_its_own_and_they_are_read_in_order(database, job_id):
    with database() as session:
        append(session, job_id, 0, b"first run\n")
        jobs.record_report(jobs.lock(session, job_id), JobState.SUCCESS, 1, NOW)
    with database() as session:
        queue_job(session, NOW, id=job_id)
        claim(session, session.get(Worker, "w"), NOW)
    with database() as session:
        assert logs.append(session, jobs.lock(session, job_id), 2, 0, b"second run\n").cursor == 11
        assert logs.lengths(session, job_id) == {1: 10, 2: 11}
        assert logs.pieces(session, job_id, 2, 7) == [(2, 7, b"run\n")]
        assert logs.pieces(session, job_id, 1, 10) == [(2, 0, b"second run\n")]
    assert stored(database, job_id) == b"first run\nsecond run\n"


def test_the_same_push_is_not_stored_twice_and_another_time_is_another_piece(database, job_id):
    for time, text in ((NOW, b"a"), (NOW, b"a"), (NOW + SECOND, b"a"), (NOW + SECOND / 1000, b"b"), (NOW, b"a")):
        with database() as session:
            logs.push(session, jobs.lock(session, job_id), text, time)
    assert stored(database, job_id) == b"aab"


@pytest.mark.parametrize("at_once", [6])
def test_the_same_range_from_many_connections_at_once_is_stored_once(database, job_id, at_once):
    def send(offset: int) -> None:
        with database() as session:
            append(session, job_id, offset, b"0123456789")

    for offset in (0, 10, 20):
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(send, [offset] * at_once))
    assert stored(database, job_id) == b"0123456789" * 3


def test_the_same_push_from_many_connections_at_once_is_stored_once(database, job_id):
    def send(_: int) -> None:
        with database() as session:
            logs.push(session, jobs.lock(session, job_id), b"piece\n", NOW)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(send, range(6)))
    assert stored(database, job_id) == b"piece\n"


def test_a_log_that_is_appended_to_while_its_job_is_purged_is_purged_after_it(database, job_id):
    with database() as session:
        jobs.record_report(jobs.lock(session, job_id), JobState.SUCCESS, 1, NOW)

    def send(offset: int) -> bool:
        with database() as session:
            job = jobs.lock(session, job_id)
            if job is not None:
                logs.append(session, job, job.claim, logs.cursor(session, job_id, 1), b"x" * 100)
            return job is not None

    def purge() -> None:
        gone = False
        while not gone:
            with database() as session:
                upkeep.delete_finished(session, [job_id], NOW)
            with database() as session:
                gone = session.get(Job, job_id) is None

    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(send, offset) for offset in range(10)]
        gone = pool.submit(purge)
        sent += [pool.submit(send, offset) for offset in range(10)]
    gone.result()
    assert not any(one.exception() for one in sent)
    with database() as session:
        assert session.get(Job, job_id) is None
        assert not logs.purge(session, logs.Homes(), NOW + SECOND)
        assert session.scalar(select(func.count()).select_from(LogChunk)) == 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_however_it_is_cut_repeated_and_reordered_the_log_is_the_file(database, data):
    """Play a worker that loses answers: it sends ranges anew from anywhere, and rewinds when it is told to."""
    text = data.draw(st.binary(min_size=1, max_size=400))
    with database() as session:
        worker = register(session, "w", NOW)
        job_id = queue_job(session, NOW)
        claim(session, worker, NOW)
    known = 0
    for _ in range(30):
        first = data.draw(st.integers(0, len(text) - 1))
        last = data.draw(st.integers(first, len(text)))
        with database() as session:
            try:
                cursor = append(session, job_id, first, text[first:last])
            except LogGap as gap:
                assert first > known
                assert gap.facts["cursor"] == known
            else:
                assert cursor == max(known, last)
                known = cursor
    with database() as session:
        append(session, job_id, known, text[known:])
    assert stored(database, job_id) == text


def test_a_log_is_all_here_once_the_job_is_over_and_its_bytes_are_here(database, job_id):
    with database() as session:
        append(session, job_id, 0, b"12345")
        job = jobs.lock(session, job_id)
        assert not logs.all_here(session, job)
        jobs.record_report(job, JobState.SUCCESS, 1, NOW, log_length=6)
        assert not logs.all_here(session, job)
        logs.append(session, job, job.claim, 5, b"6")
        assert logs.all_here(session, job)


def test_a_log_says_whose_it_is_and_starts_over_when_it_goes_on(database, job_id):
    with database() as session:
        append(session, job_id, 0, b"one\n")
        log = session.get(Log, job_id)
        assert log.about == {
            "dag_id": "dag",
            "task_id": "task",
            "run_id": "run",
            "map_index": -1,
            "try_number": 1,
            "queue": "default",
            "workers": {"1": "w"},
            "team": None,
        }
        assert (log.path, log.upload, log.export_due) == (session.get(Job, job_id).log_path, "none", True)
        logs.mark_whole(session, job_id, NOW + SECOND)
        assert (log.upload, log.changed_at) == ("due", NOW + SECOND)
        log.export_due = False
    with database() as session:
        append(session, job_id, 0, b"one\n")
        assert (session.get(Log, job_id).upload, session.get(Log, job_id).export_due) == ("due", False), "a repeat"
        append(session, job_id, 4, b"two\n")
        assert (session.get(Log, job_id).upload, session.get(Log, job_id).export_due) == ("none", True)


ONLY, FILE = logs.Homes(only_here=True), logs.Homes()
SINK, COLLECTOR = logs.Homes(uploads=True), logs.Homes(exports=True)


@pytest.mark.parametrize(
    ("homes", "upload", "export_due", "days", "goes"),
    [
        (FILE, "none", True, 0, False),
        (FILE, "due", True, 0, True),
        (FILE, "none", True, 31, True),
        (SINK, "due", True, 0, False),
        (SINK, "begun", True, 0, False),
        (SINK, "done", True, 0, True),
        (SINK, "due", True, 31, True),
        (COLLECTOR, "due", True, 0, False),
        (COLLECTOR, "due", False, 0, True),
        (ONLY, "due", False, 29, False),
        (ONLY, "due", False, 31, True),
    ],
)
def test_a_log_whose_job_is_gone_stays_until_it_is_elsewhere_or_too_old(
    database, job_id, homes, upload, export_due, days, goes
):
    with database() as session:
        append(session, job_id, 0, b"one\n")
        log = session.get(Log, job_id)
        log.upload, log.export_due = upload, export_due
    kept_since = NOW + timedelta(days=days - 30)
    with database() as session:
        assert not logs.purge(session, homes, NOW + timedelta(days=365))
        assert session.get(Log, job_id), "while there is a job there is its log"
        session.delete(session.get(Job, job_id))
    with database() as session:
        assert not logs.purge(session, homes, kept_since)
    with database() as session:
        assert (session.get(Log, job_id) is None) == goes
        assert session.scalar(select(func.count()).select_from(LogChunk)) == (not goes)


def test_logs_are_purged_a_bounded_number_of_rows_at_a_time(database, monkeypatch):
    monkeypatch.setattr(logs, "PURGE_LIMIT", 2)
    monkeypatch.setattr(logs, "PURGE_CHUNKS", 4)
    with database() as session:
        worker = register(session, "w", NOW)
        for chunks in (1, 9, 1, 1):
            queue_job(session, NOW)
            job = claim(session, worker, NOW)
            for chunk in range(chunks):
                logs.append(session, job, 1, chunk, b"x")
            session.delete(job)
    left = []
    more = True
    while more:
        with database() as session:
            more = logs.purge(session, logs.Homes(), NOW + SECOND)
        with database() as session:
            left.append(session.scalar(select(func.count()).select_from(LogChunk)))
    assert left[-1] == 0
    assert all(before - after <= 4 for before, after in zip([12, *left], left, strict=False))
    with database() as session:
        assert session.scalar(select(func.count()).select_from(Log)) == 0


@pytest.mark.parametrize("name", ["", "a name in the head of the stream"])
def test_what_the_worker_has_compressed_is_stored_as_it_is_and_read_as_any_other(database, job_id, name):
    def pack(text):
        stream = io.BytesIO()
        with gzip.GzipFile(name, "wb", 9, stream, 1) as file:
            file.write(text)
        return stream.getvalue()

    parts = [b"one\n" * 1000, b"two\n", bytes(2 * 1024 * 1024), bytes(range(256)) * 100]
    for number, text in enumerate(parts):
        with database() as session:
            at = sum(map(len, parts[:number]))
            assert logs.append(
                session, jobs.lock(session, job_id), 1, at, Packed.of_gzip(pack(text), len(text))
            ).fresh == len(text)
    with database() as session:
        # Begins before the cursor.
        text = parts[-1][-10:] + b"end\n"
        again = logs.append(
            session, jobs.lock(session, job_id), 1, sum(map(len, parts)) - 10, Packed.of_gzip(pack(text), len(text))
        )
        assert again.fresh == 4
        first = session.scalars(select(LogChunk.data).order_by(LogChunk.offset)).first()
    assert stored(database, job_id) == b"".join(parts) + b"end\n"
    assert (first[2:-4] in pack(parts[0])) is not bool(name)
