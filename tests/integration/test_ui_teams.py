"""The fleet page's API in an Airflow with teams: what is of another team is not there."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow_site import MOUNT, put_dag
from rows import NOW, claim, queue_job, register

from edge_otel.models import tokens, workers

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True, scope="module")

TEAMS = (None, "red", "blue")


@pytest.fixture(autouse=True)
def ids(site, database):
    """Return the ids of the tokens: for each team one, a worker, a queue, a DAG, jobs of it, and a callback."""
    ids = {}
    with database() as session:
        for team in TEAMS:
            name = team or "shared"
            worker = register(session, f"{name}-w", NOW, team=team, queues=[f"{name}-q"])
            put_dag(session, f"{name}-dag", team)
            job = {"queue": f"{name}-q", "team": team}
            queue_job(session, NOW, dag_id=f"{name}-dag", task_id=f"{name}-task", **job)
            queue_job(session, NOW, kind="callback", dag_id="ExecuteCallback", task_id=f"{name}-callback", **job)
            claim(session, worker, NOW)
            scope = {"queues": None, "lifetime": timedelta(days=10_000), "now": NOW, "by": None}
            ids[name] = tokens.create(session, worker=f"{name}-w", team=team, **scope)[0].id
    return ids


def seen(person):
    """Return which of the three somebody sees, by what they are asked for."""
    lists = {
        "workers": [row["name"] for row in person.get("workers")["workers"]],
        "queues": [row["queue"] for row in person.get("queues")["queues"]],
        "tasks": [row["dag_id"] for row in person.get("jobs")["jobs"] if row["kind"] == "task"],
        "callbacks": [row["task_id"] for row in person.get("jobs")["jobs"] if row["kind"] == "callback"],
    }
    if person.get("context")["sees_tokens"]:
        lists["tokens"] = [row["worker"] for row in person.get("tokens")["tokens"]]
    return {kind: {name.partition("-")[0] for name in names} for kind, names in lists.items()}


@pytest.mark.parametrize(
    ("who", "names"),
    [
        ("ann", {"shared", "red", "blue"}),
        ("rita", {"shared", "red"}),
        ("ruth", {"shared", "red"}),
        ("bob", {"shared", "blue"}),
        ("olaf", {"shared"}),
        ("vera", {"shared"}),
    ],
)
def test_everybody_sees_what_is_of_no_team_and_of_their_own(site, who, names):
    person = site.person(who)
    assert set(map(frozenset, seen(person).values())) == {frozenset(names)}
    page, jobs = person.get("workers"), person.get("jobs")
    assert (page["total"], sum(page["states"].values()), jobs["total"]) == (len(names), len(names), 2 * len(names))
    assert person.get("context")["teams"] == (["blue", "red"] if who == "ann" else sorted(names - {"shared"}))


def test_a_worker_of_another_team_is_answered_like_one_that_does_not_exist(site):
    rita = site.person("rita")
    for name in ("blue-w", "nobody"):
        answer = rita.call("GET", f"{MOUNT}/ui/workers/{name}")
        assert (answer.status_code, answer.json()["detail"]) == (404, f"No worker {name!r} is registered.")
    assert rita.get("workers", team="blue")["total"] == 0
    assert rita.act("shutdown", "blue-w", "nobody") == {
        "blue-w": (False, "No worker of this name is registered."),
        "nobody": (False, "No worker of this name is registered."),
    }


def test_a_glob_reaches_no_further_than_the_own_team(site, database):
    assert site.person("rita").act("shutdown", "*").keys() == {"red-w", "shared-w"}
    with database() as session:
        states = {worker.name: worker.state for worker in workers.every(session)}
    assert states == {"red-w": "shutdown request", "shared-w": "shutdown request", "blue-w": "starting"}
    assert site.person("bob").act("set_concurrency", "*", slots=2, dry_run=True).keys() == {"blue-w", "shared-w"}


def test_a_worker_shows_only_jobs_that_its_viewer_may_read(site, database):
    with database() as session:
        job = queue_job(session, NOW, dag_id="blue-dag", task_id="hidden", queue="red-q", team="red", priority=9)
        assert claim(session, workers.get(session, "red-w"), NOW).id == job
    shown = {job["task_id"] for job in site.person("ruth").get("workers/red-w")["jobs"]}
    assert shown == {"red-task"}
    assert "hidden" in {job["task_id"] for job in site.person("ann").get("workers/red-w")["jobs"]}
    # The numbers are the worker's own, whoever looks.
    assert site.person("ruth").get("workers/red-w")["worker"]["jobs"] == 2


def test_tokens_of_another_team_are_neither_seen_nor_changed_nor_made(site, ids, database):
    rita = site.person("rita")
    for change in ("rotate", "revoke"):
        for token in (ids["blue"], "0" * 16):
            answer = rita.call("POST", f"{MOUNT}/ui/tokens/{token}/{change}", json={} if change == "rotate" else None)
            assert (answer.status_code, answer.json()["error"]) == (404, "TokenNotFound")
            assert answer.json()["detail"].startswith(f"No token has the id {token!r}. ")
    assert rita.post("tokens", 403, worker="x", team="blue")["error"] == "NotPermitted"
    assert rita.post("tokens", 201, worker="x", team="red")["row"]["team"] == "red"
    assert rita.post(f"tokens/{ids['red']}/rotate", 201)["row"]["team"] == "red"
    assert site.person("ruth").post(f"tokens/{ids['red']}/rotate", 403)["error"] == "NotPermitted"
    with database() as session:
        blue = tokens.get(session, ids["blue"])
        assert (blue.revoked_at, blue.rotated_to) == (None, None)


def test_a_viewer_of_a_team_looks_and_no_more(site, database):
    ruth = site.person("ruth")
    context = ruth.get("context")
    assert (context["acts"], context["sees_tokens"], context["makes_tokens"]) == (False, False, False)
    assert ruth.act("shutdown", "red-w", status=403)["error"] == "NotPermitted"
    assert ruth.call("GET", f"{MOUNT}/ui/tokens").status_code == 403
    with database() as session:
        assert workers.get(session, "red-w").state == "starting"
