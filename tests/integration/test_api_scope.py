"""Every route against every wrong credential: refused, nothing changed, and no token is ever repeated."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from credentials import (
    below_v1,
    dump,
    refused_anywhere,
    refused_though_shared_secrets_are_accepted,
    settle_last_use,
    shared_secret,
)
from fastapi import FastAPI
from rows import NOW, claim, queue_job, register
from served import new_token, registration, wish

from edge_otel.api.app import create_app
from edge_otel.models import jobs, workers
from edge_otel.settings import LogFolder, Settings
from edge_otel.state import JobState

OPEN = {("GET", "/v1/health"), ("GET", "/livez"), ("GET", "/readyz"), ("GET", "/metrics")}
"""Open to everybody, or to clients on this host."""
GATEWAY = {("POST", "/v2/otlp/v1/{signal}")}
"""A token there speaks for its own worker whatever is claimed: its refusals have tests of their own."""
RUNNING = str(UUID(int=1))
OFFERED = str(UUID(int=2))
_JOB = "dag/task/run/1/-1"

# A request for each route that worker ``w`` may make: refused only for who asks.
REQUESTS: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {
    ("POST", "/v1/worker/{worker_name}"): ("/v1/worker/w", {"json": registration(session="s2")}),
    ("PATCH", "/v1/worker/{worker_name}"): ("/v1/worker/w", {"json": registration("running")}),
    ("PATCH", "/v1/worker/queues/{worker_name}"): ("/v1/worker/queues/w", {"json": {"new_queues": ["b"]}}),
    ("POST", "/v1/jobs/fetch/{worker_name}"): ("/v1/jobs/fetch/w", {"json": wish()}),
    (
        "PATCH",
        "/v1/jobs/state/{dag_id}/{task_id}/{run_id}/{try_number}/{map_index}/{state}",
    ): (f"/v1/jobs/state/{_JOB}/running", {"json": {"task_instance_id": OFFERED, "claim": 1}}),
    ("GET", "/v1/logs/logfile_path/{dag_id}/{task_id}/{run_id}/{try_number}/{map_index}"): (
        f"/v1/logs/logfile_path/{_JOB}",
        {},
    ),
    ("POST", "/v1/logs/push/{dag_id}/{task_id}/{run_id}/{try_number}/{map_index}"): (
        f"/v1/logs/push/{_JOB}",
        {"json": {"log_chunk_time": NOW.isoformat(), "log_chunk_data": "x", "task_instance_id": RUNNING}},
    ),
    ("PATCH", "/v2/jobs/{job_id}/log"): (
        f"/v2/jobs/{RUNNING}/log",
        {"data": b"1", "headers": {"X-Claim": "1", "Content-Range": "bytes 0-0/*"}},
    ),
    ("HEAD", "/v2/jobs/{job_id}/log"): (f"/v2/jobs/{RUNNING}/log", {"headers": {"X-Claim": "1"}}),
    ("POST", "/v2/jobs/{job_id}/token"): (f"/v2/jobs/{RUNNING}/token", {"headers": {"X-Claim": "1"}}),
}


def routes(app: FastAPI) -> set[tuple[str, str]]:
    """Return method and path of every documented route."""
    return {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}


@pytest.fixture
def state(database):
    """Worker ``w`` with a running job, an offered one and one that waits; no file is written."""
    with database() as session:
        worker = register(session, "w", NOW, state="idle", queues=["a", "default"], token_id=None)
        for job_id in (RUNNING, OFFERED):
            queue_job(session, NOW, id=job_id)
            claim(session, worker, NOW)
        jobs.record_report(jobs.lock(session, RUNNING), JobState.RUNNING, 1, NOW)
        session.flush()
        queue_job(session, NOW)
        worker.last_heartbeat = datetime.now(UTC) - timedelta(days=1)


def call(api, method, path, request, authorization):
    """Send the request with this header."""
    headers = request.get("headers", {}) | ({} if authorization is None else {"Authorization": authorization})
    # The header goes out as Latin-1, as any client may send it.
    coded = {name: value.encode("latin-1") for name, value in headers.items()}
    return api.call(method, path, **request | {"headers": coded})


def secret_parts(authorizations):
    """Return what of these headers may be seen nowhere."""
    return [part for text in authorizations if text for part in [text.rpartition(".")[2]] if len(part) > 20]


def test_every_route_is_tried_here(tmp_path):
    app = create_app(Settings(), LogFolder(tmp_path, 0o755, 0o644))
    assert routes(app) == OPEN | GATEWAY | REQUESTS.keys()
    paths = {route.path for route in app.routes}
    hidden = paths - {path for _, path in routes(app)}
    # The channel's refusals have tests of their own.
    assert hidden == {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc", "/v2/channel"}


@pytest.mark.parametrize(("method", "template"), sorted(REQUESTS))
def test_a_wrong_credential_opens_nothing_and_changes_nothing(api, state, caplog, method, template):
    path, request = REQUESTS[method, template]
    wrong = refused_anywhere(path)
    settle_last_use()
    before = dump()
    with caplog.at_level(logging.DEBUG):
        for what, authorization in wrong.items():
            answer = call(api, method, path, request, authorization)
            assert answer.status_code == 403, what
            if method != "HEAD":
                assert answer.json()["error"] == "Forbidden", what
                assert not any(part in answer.text for part in secret_parts(wrong.values())), what
    assert dump() == before
    assert not api.logs.exists()
    assert not any(part in caplog.text for part in secret_parts(wrong.values()))
    right = call(api, method, path, request, f"Bearer {new_token('w')}")
    assert right.status_code in (200, 202), right.text


@pytest.mark.parametrize(("method", "template"), sorted(REQUESTS))
def test_the_shared_secret_opens_a_route_only_when_allowed_and_signed_for_it(start_api, state, method, template):
    api = start_api(accept_shared_secret_tokens=True)
    path, request = REQUESTS[method, template]
    wrong = refused_though_shared_secrets_are_accepted(path)
    settle_last_use()
    before = dump()
    for what, authorization in wrong.items():
        assert call(api, method, path, request, authorization).status_code == 403, what
    assert dump() == before
    right = call(api, method, path, request, shared_secret(below_v1(path)))
    assert right.status_code in ((200, 202) if "/v1/" in path else (403,)), "edge3 has no v2"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/worker/w", registration(queues=["a", "b"])),
        ("POST", "/v1/jobs/fetch/w", wish(queues=["b"])),
        ("PATCH", "/v1/worker/queues/w", {"new_queues": ["b"]}),
    ],
)
def test_a_token_for_other_queues_does_not_serve_this_one(api, state, method, path, body):
    token = new_token("w", queues=["a"])
    settle_last_use()
    before = dump()
    assert api.call(method, path, token, json=body).status_code == 403
    assert dump() == before


def test_a_worker_that_asks_for_no_queue_serves_those_of_its_token(api, state, database):
    token = new_token("w", queues=["a"])
    reply = api.call("POST", "/v1/worker/w", token, json=registration())
    assert reply.json()["queues"] == ["a"]
    api.call("PATCH", "/v1/worker/w", token, json=registration("idle"))
    assert api.call("POST", "/v1/jobs/fetch/w", token, json=wish()).json() is None
    with database() as session:
        queue_job(session, NOW, queue="a")
    assert api.call("POST", "/v1/jobs/fetch/w", token, json=wish()).json()["queue"] == "a"


@pytest.mark.parametrize(("tokens_team", "asked"), [("red", "blue"), (None, "blue")])
def test_a_token_of_another_team_is_refused(api, state, tokens_team, asked):
    token = new_token("w", team=tokens_team)
    settle_last_use()
    before = dump()
    assert api.call("POST", "/v1/worker/w", token, json=registration(team_name=asked)).status_code == 403
    assert dump() == before


def test_a_token_of_another_team_gets_no_job_of_the_workers(api, state, database):
    with database() as session:
        workers.get(session, "w").team = "blue"
        queue_job(session, NOW, team="blue")
    token = new_token("w", team="red")
    settle_last_use()
    before = dump()
    assert api.call("POST", "/v1/jobs/fetch/w", token, json=wish(team_name="blue")).status_code == 403
    assert dump() == before


def test_a_worker_of_a_team_is_of_its_tokens_team(api, database):
    reply = api.call("POST", "/v1/worker/v", new_token("v", team="red"), json=registration())
    assert reply.status_code == 200
    with database() as session:
        assert workers.get(session, "v").team == "red"


def test_one_token_of_a_group_opens_every_worker_of_the_group_and_no_other(api, state):
    token = new_token("site7-*")
    assert api.call("POST", "/v1/worker/site7-a", token, json=registration()).status_code == 200
    assert api.call("POST", "/v1/worker/site7-b", token, json=registration()).status_code == 200
    assert api.call("POST", "/v1/worker/site8-a", token, json=registration()).status_code == 403


def test_accepting_the_shared_secret_is_said_at_start(start_api, caplog):
    start_api()
    assert "accept_shared_secret_tokens" not in caplog.text
    start_api(accept_shared_secret_tokens=True)
    assert "accept_shared_secret_tokens is on" in caplog.text
