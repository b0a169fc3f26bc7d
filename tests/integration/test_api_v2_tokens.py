"""Tokens of running tasks: made as Airflow makes them, for nobody but the worker that runs the task now."""

from __future__ import annotations

import jwt
import pytest
from airflow.api_fastapi.auth.tokens import JWTValidator
from airflow.configuration import conf
from rows import NOW, claim, queue_job, register
from served import new_token

from edge_otel.api import task_tokens
from edge_otel.api.registration import told
from edge_otel.models import jobs, upkeep
from edge_otel.settings import Settings
from edge_otel.state import JobState

SECRET = "a secret of the central side that is long enough for HS512, as Airflow wants it to be signed with"
ELSEWHERE = "0" * 8 + "-0000-0000-0000-" + "0" * 12


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", SECRET)
    monkeypatch.setenv("AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME", "77")
    task_tokens._generator.cache_clear()
    yield
    task_tokens._generator.cache_clear()


def running(database, **fields):
    """Return the id of a job that worker ``w`` runs under claim 1."""
    with database() as session:
        worker = register(session, "w", NOW)
        job_id = queue_job(session, NOW, **fields)
        jobs.record_report(claim(session, worker, NOW), JobState.RUNNING, 1, NOW)
    return job_id


def ask(api, token, job_id, claim_number=1):
    return api.call("POST", f"/v2/jobs/{job_id}/token", token, headers={"X-Claim": str(claim_number)})


def test_airflow_takes_the_token_for_this_task_alone(api, token, database):
    job_id = running(database)
    answer = ask(api, token, job_id)
    assert answer.status_code == 200, answer.text
    audience = conf.get_mandatory_list_value("execution_api", "jwt_audience")
    claims = JWTValidator(audience=audience, secret_key=SECRET).validated_claims(answer.json()["token"])
    assert (claims["sub"], claims["scope"], claims["exp"] - claims["iat"]) == (job_id, "execution", 77)
    with pytest.raises(jwt.InvalidAudienceError):
        jwt.decode(answer.json()["token"], SECRET, ["HS512"], audience="api")


def test_a_job_that_waits_or_was_offered_or_has_ended_gets_none(api, token, database):
    with database() as session:
        worker = register(session, "w", NOW)
        job_id = queue_job(session, NOW)
    assert ask(api, token, job_id, 0).status_code == 403
    with database() as session:
        claim(session, worker, NOW)
    assert (ask(api, token, job_id).status_code, ask(api, token, job_id).json()["error"]) == (409, "StaleClaim")
    with database() as session:
        jobs.record_report(jobs.lock(session, job_id), JobState.RUNNING, 1, NOW)
    assert ask(api, token, job_id).status_code == 200
    with database() as session:
        jobs.record_report(jobs.lock(session, job_id), JobState.SUCCESS, 1, NOW)
    assert ask(api, token, job_id).json()["error"] == "StaleClaim"


def test_another_claim_another_worker_and_a_job_that_is_gone_get_none(api, token, database):
    job_id = running(database)
    assert ask(api, token, job_id, 2).status_code == 409
    assert ask(api, new_token("other"), job_id).status_code == 403
    assert ask(api, None, job_id).status_code == 403
    assert ask(api, token, ELSEWHERE).json()["error"] == "JobNotFound"
    with database() as session:
        upkeep.withdraw(session, job_id, NOW)
    assert ask(api, token, job_id).json()["error"] == "StaleClaim"


def test_a_callback_gets_none(api, token, database):
    assert ask(api, token, running(database, kind="callback")).json()["error"] == "NoTask"


def test_a_server_without_the_key_says_what_it_needs_and_offers_none(api, token, database, monkeypatch):
    assert told(Settings(), 10, NOW).token_renewal is True
    monkeypatch.delenv("AIRFLOW__API_AUTH__JWT_SECRET")
    task_tokens._generator.cache_clear()
    answer = ask(api, token, running(database))
    assert (answer.status_code, answer.json()["error"]) == (503, "TokensUnavailable")
    assert "jwt_secret" in answer.json()["detail"]
    assert told(Settings(), 10, NOW).token_renewal is False
