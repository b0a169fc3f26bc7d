"""A token for a group of workers opens only those of its own team and queues."""

from __future__ import annotations

import pytest
from rows import NOW, queue_job
from served import new_token, registration, wish

from edge_otel.models.tables import Job, Worker

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)

STATE = "/v1/jobs/state/dag/task/run/1/-1/failed"


@pytest.fixture
def running(api, database):
    """A job that runs on worker ``site-1``, of no team and queue ``a``."""
    own = new_token("site-1", queues=["a"])
    assert api.call("POST", "/v1/worker/site-1", own, json=registration(queues=["a"])).ok
    with database() as session:
        job_id = queue_job(session, NOW, queue="a")
    job = api.call("POST", "/v1/jobs/fetch/site-1", own, json=wish(queues=["a"])).json()
    assert job["task_instance_id"] == job_id
    return job_id


@pytest.mark.parametrize("wrong", [{"team": "b"}, {"queues": ["b"]}, {"team": "b", "queues": ["a"]}])
def test_a_token_of_another_team_or_queue_changes_nothing(api, database, running, wrong):
    token = new_token("site-*", **wrong)
    with database() as session:
        queue_job(session, NOW, queue="a")
    told = {"task_instance_id": running, "claim": 1}
    log = {"X-Claim": "1", "Content-Range": "bytes 0-0/*"}
    answers = {
        "heartbeat": api.call("PATCH", "/v1/worker/site-1", token, json=registration("offline", queues=None)),
        "queues": api.call("PATCH", "/v1/worker/queues/site-1", token, json={"remove_queues": ["a"]}),
        "fetch": api.call("POST", "/v1/jobs/fetch/site-1", token, json=wish()),
        "report": api.call("PATCH", STATE, token, json=told),
        "log": api.call("PATCH", f"/v2/jobs/{running}/log", token, data=b"x", headers=log),
        "cursor": api.call("HEAD", f"/v2/jobs/{running}/log", token, headers=log),
        "path": api.call("GET", f"/v1/logs/logfile_path/dag/task/run/1/-1?task_instance_id={running}", token),
    }
    assert {what: answer.status_code for what, answer in answers.items()} == dict.fromkeys(answers, 403)
    with database() as session:
        worker = session.get(Worker, "site-1")
        assert (worker.state, worker.queues) == ("starting", ["a"])
        assert session.get(Job, running).state == "assigned"


@pytest.mark.parametrize("session", [None, "another"])
def test_whoever_does_not_know_the_daemons_session_is_not_that_daemon(api, database, running, session):
    token = new_token("site-*", queues=["a"])
    beat = api.call("PATCH", "/v1/worker/site-1", token, json=registration("idle", queues=["a"], session=session))
    fetched = api.call("POST", "/v1/jobs/fetch/site-1", token, json=wish(queues=["a"], session=session))
    assert [answer.json().get("error") for answer in (beat, fetched)] == ["SessionReplaced"] * 2
