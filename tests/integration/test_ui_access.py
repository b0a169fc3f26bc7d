"""The fleet page's API inside Airflow: who may do what, by Airflow's login and roles, and from which site."""

from __future__ import annotations

from datetime import timedelta

import pytest
import requests
from airflow_site import MOUNT
from rows import NOW, register

from edge_otel.api.ui_access import ACTION_HEADER
from edge_otel.models import tokens, workers
from edge_otel.page_files import edition
from edge_otel.wire import LogLine

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True, scope="module")

READS = ("context", "workers", "workers/w", "queues", "jobs", "tokens")
TOKEN = "0123456789abcdef"
CHANGES = {
    "actions": {"selection": {"names": ["w"]}, "action": {"kind": "shutdown"}},
    "tokens": {"worker": "new"},
    f"tokens/{TOKEN}/rotate": {},
    f"tokens/{TOKEN}/revoke": None,
}
"""Path and body of every request that changes something."""
OWN = {ACTION_HEADER: "1", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture(autouse=True)
def rows(site, database):
    """Worker ``w`` and a token, of no team."""
    with database() as session:
        register(session, "w", NOW)
        scope = {"queues": None, "team": None, "lifetime": timedelta(days=10_000), "now": NOW, "by": None}
        token, _ = tokens.create(session, worker="w", **scope)
        token.id = TOKEN


@pytest.fixture
def unchanged(database):
    """Nothing of it has changed when the test is over."""
    yield
    with database() as session:
        assert workers.get(session, "w").state == "starting"
        (token,) = tokens.every(session)
        assert (token.revoked_at, token.rotated_to) == (None, None)


def every_route(site):
    """Return method and path of each route of the fleet page, from the document."""
    document = site.stranger().call("GET", f"{MOUNT}/openapi.json").json()
    return {(m.upper(), p) for p, methods in document["paths"].items() if p.startswith("/ui/") for m in methods}


def test_every_route_is_asked_here(site):
    asked = {("GET", f"/ui/{path}") for path in READS} | {("POST", f"/ui/{path}") for path in CHANGES}
    named = {
        (method, path.replace("workers/w", "workers/{worker_name}").replace(TOKEN, "{token_id}"))
        for method, path in asked
    }
    assert named == every_route(site)


@pytest.mark.parametrize("cookie", [None, "", "junk", "a.b.c"])
def test_nobody_reads_or_changes_anything_without_a_login(site, unchanged, cookie):
    stranger = site.stranger(cookie)
    answers = [stranger.call("GET", f"{MOUNT}/ui/{path}") for path in READS]
    answers += [stranger.call("POST", f"{MOUNT}/ui/{path}", json=body) for path, body in CHANGES.items()]
    # Airflow says 403 to what is no token at all.
    assert {answer.status_code for answer in answers} == ({403} if cookie else {401})
    assert all({"error", "detail", "error_id"} <= answer.json().keys() for answer in answers)


def test_a_login_that_has_expired_is_one_no_more(site, unchanged):
    for expired in (site.login("ann", lasts=-3600), site.login("ann", lasts=-3600, key="another key" * 10)):
        for method, path in (("GET", "workers"), ("POST", "actions")):
            answer = site.stranger(expired).call(method, f"{MOUNT}/ui/{path}", json=CHANGES.get(path))
            assert answer.status_code in (401, 403)
    forged = site.login("ann", key="another key" * 10)
    assert site.stranger(forged).call("GET", f"{MOUNT}/ui/workers").status_code == 403
    assert site.stranger(site.login("ann")).call("GET", f"{MOUNT}/ui/workers").status_code == 200


@pytest.mark.parametrize(("who", "told"), [("ann", True), ("olaf", True), ("uma", False), ("vera", False)])
def test_what_names_jobs_of_every_dag_is_shown_to_those_alone_who_may_act_on_the_worker(site, database, who, told):
    line = {"number": 1, "time": NOW, "level": 20, "text": "job 1: offered: secret_dag secret_run secret_task"}
    with database() as session:
        worker = workers.get(session, "w")
        workers.worker_log.append(session, worker, [("source", LogLine.model_validate(line))])
        workers.events_of(session, "w")[0].trace_id = "a" * 32
    answer = site.person(who).call("GET", f"{MOUNT}/ui/workers/w")
    shown = answer.json()
    assert shown["log_hidden"] is not told
    assert [line["text"] for line in shown["log"]] == [line["text"]] * told
    assert [event["trace_id"] for event in shown["events"]] == ["a" * 32 if told else None]
    assert ("secret" in answer.text, "aaaaaaaa" in answer.text) == (told, told)


def test_a_worker_token_opens_nothing_here(site, database, unchanged):
    with database() as session:
        scope = {"queues": None, "team": None, "lifetime": timedelta(days=1), "now": NOW, "by": None}
        token, text = tokens.create(session, worker="*", **scope)
        session.flush()
        session.delete(token)
    headers = {"Authorization": f"Bearer {text}", **OWN}
    assert site.stranger().call("GET", f"{MOUNT}/ui/workers", headers=headers).status_code == 403
    answer = site.stranger().call("POST", f"{MOUNT}/ui/actions", headers=headers, json=CHANGES["actions"])
    assert answer.status_code == 403


@pytest.mark.parametrize(("who", "tokens"), [("ann", 200), ("olaf", 200), ("uma", 403), ("vera", 403)])
def test_every_role_reads_and_only_those_who_may_read_connections_see_tokens(site, who, tokens):
    person = site.person(who)
    for path in READS:
        expected = tokens if path == "tokens" else 200
        assert person.call("GET", f"{MOUNT}/ui/{path}").status_code == expected, path
    may = tokens == 200
    context = person.get("context")
    assert (context["user"], context["teams"]) == (who, ["blue", "red"] if who == "ann" else [])
    assert (context["acts"], context["sees_tokens"], context["makes_tokens"]) == (may, may, may)
    assert (context["action_header"], context["trace_url"]) == (ACTION_HEADER, "http://traces.example/{trace_id}")
    assert context["api_url"] == "https://central.example/edge_worker"


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize("who", ["uma", "vera"])
def test_who_may_not_edit_pools_or_connections_changes_nothing(site, unchanged, who, path):
    answer = site.person(who).call("POST", f"{MOUNT}/ui/{path}", json=CHANGES[path])
    assert (answer.status_code, answer.json()["error"]) == (403, "NotPermitted")
    assert "role" in answer.json()["detail"]


@pytest.mark.parametrize("who", ["ann", "olaf", "carl<i>\"'"])
def test_who_may_does(site, who):
    person = site.person(who)
    assert person.act("shutdown", "w") == {"w": (True, "shutdown request")}
    assert person.get("workers/w")["worker"]["state_cause"] == f"admin:{who}"
    assert person.post("tokens", 201, worker="new")["row"]["created_by"] == who
    assert person.post(f"tokens/{TOKEN}/rotate", 201)["row"]["worker"] == "w"
    assert person.call("POST", f"{MOUNT}/ui/tokens/{TOKEN}/revoke").json()["state"] == "revoked"


FOREIGN = {
    "no header": {},
    "no header, same origin": {"Sec-Fetch-Site": "same-origin"},
    "another site": {**OWN, "Sec-Fetch-Site": "cross-site"},
    "a neighbour": {**OWN, "Sec-Fetch-Site": "same-site"},
    "nonsense": {**OWN, "Sec-Fetch-Site": "x"},
    "other credential": {"Authorization": "Basic YTpi"},
    "empty credential": {"Authorization": "Bearer"},
}


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("path", CHANGES)
def test_a_request_that_another_site_could_have_made_is_refused(site, unchanged, path, headers):
    answer = site.person("ann").call("POST", f"{MOUNT}/ui/{path}", json=CHANGES[path], headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (403, "CrossSite")
    assert ACTION_HEADER in answer.json()["detail"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize("path", ["actions", "tokens"])
def test_a_body_that_a_form_could_send_is_none(site, unchanged, path, kind):
    body = requests.Request(json=CHANGES[path], method="POST", url="http://x").prepare().body
    for own, status in (({}, 403), (OWN, 422)):
        headers = {**own, "Content-Type": kind}
        answer = site.person("ann").call("POST", f"{MOUNT}/ui/{path}", data=body, headers=headers)
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["actions", f"tokens/{TOKEN}/revoke", f"tokens/{TOKEN}/rotate"])
def test_changes_are_made_by_post_alone(site, unchanged, path, method):
    assert site.person("ann").call(method, f"{MOUNT}/ui/{path}", json=CHANGES[path]).status_code == 405


def test_a_program_uses_a_bearer_token_and_needs_no_header(site):
    headers = {"Authorization": f"Bearer {site.login('olaf')}"}
    answer = site.stranger().call("POST", f"{MOUNT}/ui/actions", json=CHANGES["actions"], headers=headers)
    assert answer.json() == [{"worker": "w", "done": True, "text": "shutdown request"}]


def test_a_bearer_token_counts_instead_of_the_cookie(site, unchanged):
    for headers, status in (
        ({"Authorization": f"Bearer {site.login('vera')}"}, 403),
        ({"Authorization": "Bearer junk"}, 403),
    ):
        answer = site.person("ann").call("POST", f"{MOUNT}/ui/actions", json=CHANGES["actions"], headers=headers)
        assert answer.status_code == status
    assert (
        site.person("vera")
        .call("GET", f"{MOUNT}/ui/tokens", headers={"Authorization": f"Bearer {site.login('ann')}"})
        .ok
    )


def test_the_page_itself_is_open_and_is_kept_by_browsers_until_it_changes(site):
    static = f"{MOUNT}/ui/static"
    answer = site.stranger().call("GET", f"{static}/{edition()}/page.js")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "public, max-age=31536000, immutable")
    assert answer.headers["Content-Type"].startswith("text/javascript")
    other = site.stranger().call("GET", f"{static}/0123456789abcdef/page.js")
    assert (other.status_code, other.headers["Cache-Control"], other.text) == (200, "no-cache", answer.text)
    again = {"If-None-Match": other.headers["ETag"]}
    assert site.stranger().call("GET", f"{static}/0123456789abcdef/page.js", headers=again).status_code == 304
    for path in ("../plugin.py", "..%2fplugin.py", "%2e%2e/plugin.py", "nothing.js", ""):
        for folder in ("", "x/", f"{edition()}/", f"{edition()}/../x/"):
            assert site.stranger().call("GET", f"{static}/{folder}{path}").status_code == 404


def test_without_airflow_around_it_there_is_no_page(api):
    for path in ("context", "workers", "tokens", f"static/{edition()}/page.js"):
        assert api.call("GET", f"/ui/{path}").status_code == 404
    assert api.call("POST", "/ui/actions", json=CHANGES["actions"], headers=OWN).status_code == 404


def test_who_may_not_read_airflow_s_jobs_gets_nothing(site, unchanged):
    nick = site.stranger(site.login("nick"))
    answers = [nick.call("GET", f"{MOUNT}/ui/{path}") for path in READS]
    answers += [nick.call("POST", f"{MOUNT}/ui/{path}", json=body) for path, body in CHANGES.items()]
    assert {(answer.status_code, answer.json()["error"]) for answer in answers} == {(403, "NotPermitted")}
