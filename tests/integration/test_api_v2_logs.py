"""v2 logs over a real socket: ranges, gzip, cursors."""

from __future__ import annotations

import gzip
import hashlib

import pytest
from rows import NOW, claim, queue_job, register
from served import new_token, registration

from edge_otel.models import jobs, logs
from edge_otel.models.tables import Job, Worker
from edge_otel.state import JobState


@pytest.fixture
def job_id(database, token):
    """The id of a job that worker ``w`` runs under claim 1."""
    with database() as session:
        worker = register(session, "w", NOW)
        job_id = queue_job(session, NOW)
        jobs.record_report(claim(session, worker, NOW), JobState.RUNNING, 1, NOW)
    return job_id


def send(api, token, job_id, first, data, *, claim=1, headers=None, body=None):
    """Send bytes that begin at ``first``."""
    ranges = {"X-Claim": str(claim), "Content-Range": f"bytes {first}-{first + len(data) - 1}/*"}
    return api.call(
        "PATCH", f"/v2/jobs/{job_id}/log", token, data=data if body is None else body, headers=ranges | (headers or {})
    )


def test_the_answer_tells_how_many_bytes_are_stored(api, token, job_id):
    first = send(api, token, job_id, 0, b"one\n")
    assert (first.status_code, first.headers["Range"], first.content) == (202, "bytes=0-3", b"")
    assert send(api, token, job_id, 0, b"one\ntwo\n").headers["Range"] == "bytes=0-7"
    assert send(api, token, job_id, 0, b"one\n").headers["Range"] == "bytes=0-7"


def test_the_cursor_can_be_asked_for(api, token, job_id):
    headers = {"X-Claim": "1"}
    empty = api.call("HEAD", f"/v2/jobs/{job_id}/log", token, headers=headers)
    assert (empty.status_code, empty.headers["Range"]) == (200, "")
    send(api, token, job_id, 0, b"one\n")
    assert api.call("HEAD", f"/v2/jobs/{job_id}/log", token, headers=headers).headers["Range"] == "bytes=0-3"


@pytest.mark.parametrize(("stored", "cursor"), [(b"", ""), (b"one\n", "bytes=0-3")])
def test_a_gap_is_answered_416_with_the_cursor(api, token, job_id, stored, cursor):
    if stored:
        send(api, token, job_id, 0, stored)
    answer = send(api, token, job_id, 100, b"late")
    assert (answer.status_code, answer.headers["Range"], answer.json()["error"]) == (416, cursor, "LogGap")


def test_compressed_bytes_are_counted_before_compression(api, token, job_id, database):
    text = b"line\n" * 100_000
    answer = send(api, token, job_id, 0, text, body=gzip.compress(text), headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.headers["Range"]) == (202, "bytes=0-499999")
    with database() as session:
        jobs.record_report(jobs.lock(session, job_id), JobState.SUCCESS, 1, NOW, log_length=500_004)
    send(api, token, job_id, 500_000, b"end\n")
    assert next(api.logs.rglob("*.log")).read_bytes() == text + b"end\n"


@pytest.mark.parametrize(
    "body",
    [b"not gzip", gzip.compress(b"cut short")[:-5], gzip.compress(b"1") + b"tail", b"", gzip.compress(b"1") * 2],
    ids=["not gzip", "cut short", "with a tail", "empty", "two streams"],
)
def test_what_is_no_whole_gzip_stream_is_refused(api, token, job_id, body):
    answer = send(api, token, job_id, 0, b"1", body=body, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]) == (422, "BadInput")


def test_a_body_that_swells_beyond_the_limit_is_refused(api, token, job_id):
    swollen = gzip.compress(bytes(17 * 1024 * 1024))
    answer = send(api, token, job_id, 0, b"1", body=swollen, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]) == (413, "TooLarge")


@pytest.mark.parametrize(
    "content_range",
    ["", "bytes", "bytes 0-0/1", "bytes 0-1/*", "bytes 1-0/*", "bytes -1-0/*", "0-0/*", f"bytes {'9' * 30}-0/*", "x"],
)
def test_a_range_that_is_not_the_bodys_is_refused(api, token, job_id, content_range):
    answer = send(api, token, job_id, 0, b"1", headers={"Content-Range": content_range})
    assert (answer.status_code, answer.json()["error"]) == (422, "BadInput")


def test_the_highest_offset_is_a_gap_like_any_other(api, token, job_id):
    last = 10**18 - 1
    answer = send(api, token, job_id, last, b"1")
    assert answer.status_code == 416


@pytest.mark.parametrize("headers", [{"X-Claim": "two"}, {"X-Claim": "-1"}, {"X-Claim": "9" * 40}, {"X-Claim": None}])
def test_a_claim_that_is_no_number_is_refused(api, token, job_id, headers):
    assert send(api, token, job_id, 0, b"1", headers=headers).status_code == 422


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "GZIP", ""])
def test_an_unknown_encoding_is_refused(api, token, job_id, encoding):
    assert send(api, token, job_id, 0, b"1", headers={"Content-Encoding": encoding}).status_code == 422


@pytest.mark.parametrize("method", ["PATCH", "HEAD"])
@pytest.mark.parametrize("claim_number", [0, 2])
def test_another_claim_is_answered_409(api, token, job_id, method, claim_number):
    headers = {"X-Claim": str(claim_number), "Content-Range": "bytes 0-0/*"}
    data = b"1" if method == "PATCH" else None
    answer = api.call(method, f"/v2/jobs/{job_id}/log", token, headers=headers, data=data)
    assert (answer.status_code, answer.headers["X-Edge-Error"]) == (409, "StaleClaim")


def test_a_log_of_a_job_that_is_gone_is_answered_404(api, token):
    answer = send(api, token, "0" * 8 + "-0000-0000-0000-" + "0" * 12, 0, b"1")
    assert (answer.status_code, answer.json()["error"]) == (404, "JobNotFound")


def test_bytes_that_come_after_the_end_complete_the_log(api, token, job_id, database):
    text = b"012\n456789"
    send(api, token, job_id, 0, text[:4])
    end = {
        "task_instance_id": job_id,
        "claim": 1,
        "log_length": 10,
        "log_sha256": hashlib.sha256(text).hexdigest(),
    }
    assert api.call("PATCH", "/v1/jobs/state/dag/task/run/1/-1/success", token, json=end).status_code == 200
    assert next(api.logs.rglob("*.log")).read_bytes() == text[:4]
    send(api, token, job_id, 4, text[4:])
    assert next(api.logs.rglob("*.log")).read_bytes() == text
    with database() as session:
        assert session.get(Job, job_id).log_complete


def test_the_log_of_a_job_that_went_to_another_worker_is_closed_to_the_first(api, token, job_id, database):
    with database() as session:
        other = register(session, "v", NOW)
        job = jobs.lock(session, job_id)
        job.state = JobState.QUEUED
        session.flush()
        claim(session, other, NOW)
    assert send(api, token, job_id, 0, b"1").status_code == 409
    assert send(api, token, job_id, 0, b"1", claim=2).status_code == 403
    assert send(api, new_token("v"), job_id, 0, b"1", claim=2).status_code == 202


def test_the_log_of_a_deferred_tasks_first_part_is_taken_while_it_runs_elsewhere(api, token, job_id, database):
    send(api, token, job_id, 0, b"first ")
    with database() as session:
        other = register(session, "v", NOW)
        queue_job(session, NOW, id=job_id)
        claim(session, other, NOW)
    assert send(api, token, job_id, 6, b"part\n").status_code == 202
    assert send(api, new_token("v"), job_id, 6, b"x").status_code == 403
    assert send(api, new_token("v"), job_id, 0, b"second\n", claim=2).status_code == 202
    with database() as session:
        assert b"".join(logs.read(session, job_id)) == b"first part\nsecond\n"


def test_a_worker_may_finish_its_logs_after_it_left(api, token, job_id, database):
    api.call("PATCH", "/v1/worker/w", token, json=registration("offline"))
    with database() as session:
        assert session.get(Worker, "w").state == "offline"
    assert send(api, token, job_id, 0, b"last words").status_code == 202
