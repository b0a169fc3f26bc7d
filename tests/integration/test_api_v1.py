"""v1 over a real socket, in the field names of edge3 5.1.0."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import quote

import pytest
from rows import NOW, queue_job
from served import FACTS, coordinates, new_token, registration, wish

from edge_otel.models import upkeep, wishes, workers
from edge_otel.models.tables import Job, Worker
from edge_otel.state import JobState, WorkerState


@pytest.fixture
def worker(api, token):
    """Register worker ``w``."""
    assert api.call("POST", "/v1/worker/w", token, json=registration()).status_code == 200
    assert api.call("PATCH", "/v1/worker/w", token, json=registration("idle")).status_code == 200
    return "w"


def put_job(database, **fields):
    """Queue a job and return its id."""
    with database() as session:
        return queue_job(session, NOW, **fields)


def fetch(api, token, **fields):
    """Return the job that worker ``w`` gets."""
    answer = api.call("POST", "/v1/jobs/fetch/w", token, json=wish(**fields))
    assert answer.status_code == 200, answer.text
    return answer.json()


def tell(api, token, job, state, **fields):
    """Report the job's state."""
    body = {"task_instance_id": job["task_instance_id"], "claim": job["claim"], **fields}
    return api.call("PATCH", f"/v1/jobs/state/{coordinates(job)}/{state}", token, json=body)


def stored(database, job_id):
    """Return the job's row."""
    with database() as session:
        return session.get(Job, job_id)


def test_a_registration_answers_what_edge3_reads_and_what_we_add(api, token, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor,Site:some.Executor")
    answer = api.call("POST", "/v1/worker/w", token, json=registration(queues=["a"]))
    assert answer.status_code == 200
    reply = answer.json()
    assert {"last_update", "versions_match", "state", "queues", "maintenance_comments", "concurrency"} <= reply.keys()
    assert (reply["state"], reply["queues"], reply["versions_match"]) == ("starting", ["a"], True)
    assert reply["settings"]["heartbeat_interval"] == 30.0
    assert reply["settings"]["executors"] == "LocalExecutor,Site:some.Executor"
    assert reply["settings"]["server_time"].endswith("Z")


@pytest.mark.parametrize("version", ["3.2.0", "3.4.0", "2.10.5", None, "none"])
def test_a_worker_of_another_airflow_is_refused_with_both_versions(api, token, database, version):
    facts = {**FACTS, "airflow_version": version} if version else {"edge_provider_version": "0.1.0"}
    answer = api.call("POST", "/v1/worker/w", token, json=registration(sysinfo=facts))
    assert answer.status_code == 400
    assert answer.json()["error"] == "VersionRefused"
    with database() as session:
        assert workers.every(session) == []


def test_a_worker_within_the_minimum_is_accepted_as_a_mismatch(start_api, token):
    api = start_api(minimum_acceptable_core_version_for_workers="3.2.0")
    facts = {**FACTS, "airflow_version": "3.2.1"}
    reply = api.call("POST", "/v1/worker/w", token, json=registration(sysinfo=facts)).json()
    assert reply["versions_match"] is False


def test_a_worker_refused_for_its_version_is_still_seen(api, token, worker, database):
    facts = {**FACTS, "airflow_version": "3.2.1"}
    answer = api.call("PATCH", "/v1/worker/w", token, json=registration("terminating", sysinfo=facts))
    assert answer.status_code == 400
    with database() as session:
        assert workers.get(session, "w").state == WorkerState.TERMINATING


def test_a_name_held_by_another_token_is_answered_409(api, worker):
    answer = api.call("POST", "/v1/worker/w", new_token("w"), json=registration(session="s2"))
    assert (answer.status_code, answer.json()["error"]) == (409, "NameTaken")


def test_the_session_that_was_replaced_learns_it_and_gets_no_jobs(api, token, worker, database):
    put_job(database)
    assert api.call("POST", "/v1/worker/w", token, json=registration(session="s2")).status_code == 200
    for method, path, body in (
        ("PATCH", "/v1/worker/w", registration("idle")),
        ("POST", "/v1/jobs/fetch/w", wish()),
    ):
        answer = api.call(method, path, token, json=body)
        assert (answer.status_code, answer.json()["error"]) == (409, "SessionReplaced")


def test_a_heartbeat_answers_what_administrators_asked_for(api, token, worker, database):
    with database() as session:
        wishes.request_maintenance(session, "w", "disk swap", NOW, by="ann")
        session.flush()
        wishes.set_concurrency(session, "w", 2, NOW, by="ann")
        session.flush()
        wishes.change_queues(session, "w", ["gpu"], [], NOW, by="ann")
    reply = api.call("PATCH", "/v1/worker/w", token, json=registration("idle")).json()
    assert (reply["state"], reply["maintenance_comments"]) == ("maintenance request", "disk swap")
    assert (reply["concurrency"], reply["queues"]) == (2, ["gpu"])


def test_a_heartbeat_of_a_worker_nobody_knows_is_answered_404(api, token):
    answer = api.call("PATCH", "/v1/worker/w", token, json=registration("idle"))
    assert (answer.status_code, answer.json()["error"]) == (404, "WorkerNotFound")


def test_a_worker_changes_its_own_queues(api, token, worker, database):
    change = {"new_queues": ["a", "b"], "remove_queues": ["c"]}
    assert api.call("PATCH", "/v1/worker/queues/w", token, json=change).status_code == 200
    assert api.call("PATCH", "/v1/worker/queues/w", token, json={"remove_queues": ["a"]}).status_code == 200
    with database() as session:
        assert workers.get(session, "w").queues == ["b"]


def test_a_fetched_job_has_edge3s_fields_and_ours(api, token, worker, database):
    carrier = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    job_id = put_job(database, slots=2, carrier=carrier)
    job = fetch(api, token)
    assert job == {
        "dag_id": "dag",
        "task_id": "task",
        "run_id": "run",
        "map_index": -1,
        "try_number": 1,
        "command": {"type": "ExecuteTask"},
        "concurrency_slots": 2,
        "task_instance_id": job_id,
        "claim": 1,
        "queue": "default",
        "carrier": carrier,
        "queued_at": "2026-01-02T03:04:05Z",
    }
    assert fetch(api, token) is None


@pytest.mark.parametrize(
    ("state", "free"),
    [("maintenance mode", 4), ("terminating", 4), ("offline", 4), ("idle", 0), ("idle", -1)],
)
def test_a_worker_that_takes_no_jobs_gets_none(api, token, worker, database, state, free):
    put_job(database)
    api.call("PATCH", "/v1/worker/w", token, json=registration(state))
    assert fetch(api, token, free_concurrency=free) is None


def test_a_queue_that_was_taken_away_is_not_served_any_more(api, token, worker, database):
    put_job(database, queue="a")
    with database() as session:
        wishes.change_queues(session, "w", ["b"], [], NOW, by="ann")
    assert fetch(api, token, queues=["a", "b"]) is None
    assert fetch(api, token) is None


def test_a_worker_without_task_instance_ids_is_told_to_upgrade(api, token, worker):
    answer = api.call("POST", "/v1/jobs/fetch/w", token, json={"free_concurrency": 1})
    assert (answer.status_code, answer.json()["error"]) == (409, "WorkerUpgradeNeeded")


def test_a_job_is_confirmed_once_and_ends(api, token, worker, database):
    job_id = put_job(database)
    job = fetch(api, token)
    assert stored(database, job_id).state == JobState.ASSIGNED
    assert tell(api, token, job, "running").status_code == 200
    assert tell(api, token, job, "running").status_code == 200
    ended = tell(api, token, job, "failed", exit_code=-9, error="killed\x00", log_length=0, log_sha256="0" * 64)
    assert (ended.status_code, ended.json()) == (200, None)
    row = stored(database, job_id)
    assert (row.state, row.exit_code, row.error, row.worker) == (JobState.FAILED, -9, "killed\ufffd", "w")
    assert tell(api, token, job, "success").status_code == 200
    assert stored(database, job_id).state == JobState.FAILED


def test_a_declined_job_returns_to_the_queue_under_a_new_claim(api, token, worker, database):
    job_id = put_job(database)
    job = fetch(api, token)
    assert tell(api, token, job, "queued").status_code == 200
    assert stored(database, job_id).state == JobState.QUEUED
    assert fetch(api, token)["claim"] == 2
    stale = tell(api, token, job, "running")
    assert (stale.status_code, stale.json()["error"]) == (409, "StaleClaim")


@pytest.mark.parametrize("missing", ["task_instance_id", "claim"])
def test_a_worker_with_a_token_must_name_job_and_claim(api, token, worker, database, missing):
    put_job(database)
    job = fetch(api, token)
    answer = tell(api, token, job, "running", **{missing: None})
    assert (answer.status_code, answer.json()["error"]) == (422, "BadInput")


def test_a_report_on_a_job_that_was_revoked_is_stale(api, token, worker, database):
    job_id = put_job(database)
    job = fetch(api, token)
    with database() as session:
        upkeep.withdraw(session, job_id, NOW)
    answer = tell(api, token, job, "running")
    assert (answer.status_code, answer.json()["error"]) == (409, "StaleClaim")


def test_coordinates_that_are_not_the_jobs_are_answered_404(api, token, worker, database):
    put_job(database)
    job = fetch(api, token)
    assert tell(api, token, {**job, "dag_id": "other"}, "running").status_code == 404


def test_offers_that_a_restarted_worker_does_not_name_return_at_once(api, token, worker, database):
    known, lost = put_job(database), put_job(database)
    claims = {job["task_instance_id"]: job["claim"] for job in (fetch(api, token), fetch(api, token))}
    body = registration(session="s2", jobs=[{"id": known, "claim": claims[known]}])
    assert api.call("POST", "/v1/worker/w", token, json=body).status_code == 200
    assert stored(database, known).state == JobState.ASSIGNED
    assert stored(database, lost).state == JobState.QUEUED


def test_an_edge3_style_log_is_found_pushed_once_and_written(api, token, worker, database):
    put_job(database)
    job = fetch(api, token)
    tell(api, token, job, "running")
    path = api.call("GET", f"/v1/logs/logfile_path/{coordinates(job)}", token)
    assert (path.status_code, path.json()) == (200, "dag_id=dag/run_id=run/task_id=task/attempt=1.log")
    for second, text in ((0, "one\n"), (0, "one\n"), (1, "two \u2713\n")):
        piece = {"log_chunk_time": (NOW + timedelta(seconds=second)).isoformat(), "log_chunk_data": text}
        pushed = api.call("POST", f"/v1/logs/push/{coordinates(job)}", token, json=piece)
        assert pushed.status_code == 200
    assert tell(api, token, job, "success").status_code == 200
    assert (api.logs / path.json()).read_text() == "one\ntwo \u2713\n"


def test_what_is_pushed_after_the_end_is_in_the_file_too(api, token, worker, database):
    put_job(database)
    job = fetch(api, token)
    tell(api, token, job, "running")
    tell(api, token, job, "failed")
    piece = {"log_chunk_time": NOW.isoformat(), "log_chunk_data": "why\n"}
    assert api.call("POST", f"/v1/logs/push/{coordinates(job)}", token, json=piece).status_code == 200
    assert next(api.logs.rglob("*.log")).read_text() == "why\n"


def test_the_trace_of_a_request_is_kept_with_the_event(api, token, worker, database):
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    api.call("PATCH", "/v1/worker/w", token, json=registration("running"), headers={"traceparent": parent})
    with database() as session:
        assert workers.events_of(session, "w")[0].trace_id == "0af7651916cd43dd8448eb211c80319c"


def test_fields_that_nobody_knows_are_ignored(api, token):
    assert api.call("POST", "/v1/worker/w", token, json=registration(from_the_future=1)).status_code == 200


@pytest.mark.parametrize("path", ["/v1/health", "/livez"])
def test_health_needs_no_token(api, path):
    answer = api.call("GET", path)
    assert answer.status_code == 200
    assert answer.json()["status"] == ("healthy" if path == "/v1/health" else "ok")


def test_coordinates_with_any_letters_reach_the_job(api, token, worker, database):
    names = {"dag_id": "d\u00e4g", "task_id": "group.t%73k+1", "run_id": "manual__2026-01-02T03:04:05+00:00 #1?"}
    job_id = put_job(database, **names)
    job = fetch(api, token)
    quoted = job | {key: quote(value, safe="") for key, value in names.items()}
    assert tell(api, token, quoted, "running").status_code == 200
    assert stored(database, job_id).state == JobState.RUNNING


def test_what_a_worker_says_of_itself_does_not_change_another(api, token, worker, database):
    assert api.call("POST", "/v1/worker/v", new_token("v"), json=registration("idle")).status_code == 200
    with database() as session:
        assert {name: session.get(Worker, name).state for name in "wv"} == {"w": "idle", "v": "idle"}
