"""``ui/tokens`` inside Airflow: worker tokens are made, shown once, rotated and revoked."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from airflow_site import MOUNT
from rows import NOW
from served import registration

from edge_otel.models import tokens

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True, scope="module")


@pytest.fixture
def ann(site):
    """An administrator."""
    return site.person("ann")


@pytest.fixture
def opens(site):
    """Returns whether a token registers worker ``w``."""

    def opens(token):
        headers = {"Authorization": f"Bearer {token}"}
        answer = site.stranger().call("POST", f"{MOUNT}/v1/worker/w", json=registration(), headers=headers)
        return answer.status_code == 200

    return opens


def lifetime(row):
    """Return how long a token is good for."""
    return datetime.fromisoformat(row["expires_at"]) - datetime.fromisoformat(row["created_at"])


def test_a_new_token_works_and_is_shown_this_once(ann, opens, audit_log):
    answer = ann.call("POST", f"{MOUNT}/ui/tokens", json={"worker": "w*", "queues": ["a"], "expires_days": 0.5})
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    token, row = answer.json()["token"], answer.json()["row"]
    assert opens(token)
    assert (row["worker"], row["queues"], row["team"], row["state"]) == ("w*", ["a"], None, "valid")
    assert (row["created_by"], lifetime(row)) == ("ann", timedelta(hours=12))
    secret = token.partition(".")[2]
    listed = ann.call("GET", f"{MOUNT}/ui/tokens")
    assert listed.json()["tokens"][0]["id"] == row["id"] == token[4:20]
    assert listed.json()["tokens"][0]["last_used_at"]
    assert secret not in listed.text
    ((event, who, extra),) = audit_log()
    assert (event, who, extra["id"], extra["worker"]) == ("edge_token_create", "ann", row["id"], "w*")
    assert secret not in str(extra)


def test_a_rotated_token_gives_way_after_the_overlap_and_a_revoked_one_at_once(ann, opens, audit_log):
    first = ann.post("tokens", 201, worker="w")
    old = first["row"]["id"]
    second = ann.post(f"tokens/{old}/rotate", 201, overlap_hours=1)
    assert opens(first["token"])
    assert opens(second["token"])
    rows = {row["id"]: row for row in ann.get("tokens")["tokens"]}
    assert rows[old]["rotated_to"] == second["row"]["id"]
    assert lifetime(rows[old]) < timedelta(hours=2)
    third = ann.post(f"tokens/{second['row']['id']}/rotate", 201, overlap_hours=0)
    assert [opens(token["token"]) for token in (second, third)] == [False, True]
    assert ann.call("POST", f"{MOUNT}/ui/tokens/{third['row']['id']}/revoke").json()["state"] == "revoked"
    assert not opens(third["token"])
    assert ann.post(f"tokens/{third['row']['id']}/rotate", 409)["error"] == "TokenEnded"
    # Once more is the same.
    again = ann.call("POST", f"{MOUNT}/ui/tokens/{third['row']['id']}/revoke").json()
    assert again["state"] == "revoked"
    assert ann.get("tokens")["states"] == {"valid": 1, "expired": 1, "revoked": 1}
    events = [(event, extra.get("old"), extra.get("new"), extra.get("id")) for event, _, extra in audit_log()]
    assert events[1] == ("edge_token_rotate", old, second["row"]["id"], None)
    assert events[3] == ("edge_token_revoke", None, None, third["row"]["id"])


def test_lists_are_filtered_and_cut(ann, database):
    with database() as session:
        for number in range(5):
            scope = {"queues": None, "team": None, "lifetime": timedelta(days=10_000), "by": None}
            tokens.create(session, worker=f"site-{number}", now=NOW + timedelta(seconds=number), **scope)
    page = ann.get("tokens", search="SITE", limit=2, offset=1)
    assert ([row["worker"] for row in page["tokens"]], page["total"]) == (["site-3", "site-2"], 5)
    assert ann.get("tokens", state="revoked")["tokens"] == []
    for wrong in ({"limit": 501}, {"state": "new"}, {"search": "a" * 65}, {"search": "\x00"}, {"x": "y"}):
        assert ann.call("GET", f"{MOUNT}/ui/tokens", params=wrong).status_code == 422


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"worker": ""},
        {"worker": "two words"},
        {"worker": "w\n"},
        {"worker": "w" * 65},
        {"worker": "w", "queues": []},
        {"worker": "w", "queues": [""]},
        {"worker": "w", "queues": ["q"] * 65},
        {"worker": "w", "team": ""},
        {"worker": "w", "expires_days": 0},
        {"worker": "w", "expires_days": 36501},
        {"worker": "w", "expires_days": "soon"},
        {"worker": "w", "secret": "mine"},
    ],
)
def test_a_token_for_what_makes_no_sense_is_not_made(ann, database, wrong):
    assert ann.post("tokens", 422, **wrong)["error"] == "BadInput"
    with database() as session:
        assert tokens.every(session) == []


def test_a_name_that_no_worker_can_have_is_refused_in_words(ann):
    said = ann.post("tokens", 422, worker="two words")
    assert said["detail"].endswith("worker: a worker name or glob has up to 64 letters, digits and _ . @ : - * ? [ ]")
    assert said["errors"][0]["loc"] == ["body", "worker"]


def test_a_team_is_refused_where_airflow_has_none(ann, database, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "False")
    assert "has no teams here" in ann.post("tokens", 422, worker="w", team="red")["detail"]
    with database() as session:
        assert tokens.every(session) == []
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    assert ann.post("tokens", 201, worker="w", team="red")["row"]["team"] == "red"


@pytest.mark.parametrize(
    "body", [b'{"worker": "w", "expires_days": NaN}', b'{"worker": "w", "expires_days": Infinity}']
)
def test_a_lifetime_that_is_no_number_is_none(ann, body):
    headers = {"X-Edge-Action": "1", "Content-Type": "application/json"}
    assert ann.call("POST", f"{MOUNT}/ui/tokens", data=body, headers=headers).status_code == 422


@pytest.mark.parametrize("token_id", ["0" * 16, "x", "%00", "..", "0" * 5000])
def test_a_token_that_does_not_exist_is_not_found(ann, token_id):
    for change in ("rotate", "revoke"):
        answer = ann.call("POST", f"{MOUNT}/ui/tokens/{token_id}/{change}", json={} if change == "rotate" else None)
        assert answer.status_code in (404, 422)
