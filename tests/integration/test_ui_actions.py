"""``POST ui/actions`` inside Airflow: what becomes of workers, what they learn of it, and what is kept of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from airflow_rows import CARRIER
from airflow_site import MOUNT
from rows import NOW, history, queue_job, register, register_as
from served import new_token, registration
from sqlalchemy import update

from edge_otel.models import workers
from edge_otel.models.tables import Worker
from edge_otel.state import WorkerState

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True, scope="module")

S = WorkerState


@pytest.fixture
def ann(site):
    """An administrator."""
    return site.person("ann")


class Polling:
    """Worker ``w``, which polls."""

    def __init__(self, site, **fields):
        self._always = fields
        self._headers = {"Authorization": f"Bearer {new_token('w')}", **CARRIER}
        self._person = site.stranger()
        self.send("POST", "starting")

    def send(self, method, state, **fields):
        body = registration(state, **self._always | fields)
        answer = self._person.call(method, f"{MOUNT}/v1/worker/w", json=body, headers=self._headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def beat(self, state="idle", **fields):
        """Report, and return what the server says."""
        return self.send("PATCH", state, **fields)


@pytest.fixture
def polling(site):
    """Worker ``w``, registered by the API beside the page."""
    return Polling(site)


def test_a_worker_hears_of_each_action_with_its_next_heartbeat(ann, polling):
    assert polling.beat()["state"] == "idle"
    assert ann.act("maintenance_on", "w", comment="disk swap") == {"w": (True, "maintenance request")}
    said = polling.beat("idle")
    assert (said["state"], said["maintenance_comments"], said["maintenance_origin"]) == (
        "maintenance request",
        "disk swap",
        "admin",
    )
    assert ann.act("maintenance_comment", "w", comment="still") == {"w": (True, "comment: still")}
    assert polling.beat("maintenance mode", maintenance_comments="disk swap")["maintenance_comments"] == "still"
    assert ann.act("maintenance_off", "w") == {"w": (True, "maintenance exit")}
    assert polling.beat("maintenance mode", maintenance_comments="still")["state"] == "idle"
    assert ann.act("add_queues", "w", queues=["a"]) == {"w": (True, "queues: a")}
    assert ann.act("add_queues", "w", queues=["b"]) == {"w": (True, "queues: a, b")}
    assert ann.act("remove_queues", "w", queues=["a"]) == {"w": (True, "queues: b")}
    assert ann.act("set_concurrency", "w", slots=2) == {"w": (True, "2 slots")}
    said = polling.beat()
    assert (said["queues"], said["concurrency"]) == (["b"], 2)
    assert ann.act("remove", "w")["w"][0] is False
    assert ann.act("shutdown", "w") == {"w": (True, "shutdown request")}
    assert polling.beat("running")["state"] == "shutdown request"
    assert polling.beat("offline")["state"] == "offline"
    assert ann.act("remove", "w") == {"w": (True, "removed")}
    assert ann.get("workers")["total"] == 0


@pytest.mark.parametrize("session", ["s1", None], ids=["ours", "edge3"])
def test_what_is_done_of_a_maintenance_of_the_sites_own_is_still_so_after_the_next_heartbeat(ann, site, session):
    polling = Polling(site, session=session)

    def says(comment):
        origin = "local" if session else None
        said = polling.beat("maintenance mode", maintenance_comments=comment, maintenance_origin=origin)
        shown = ann.get("workers/w")["worker"]
        assert shown["maintenance_comment"] == said["maintenance_comments"]
        assert shown["maintenance_origin"] == said["maintenance_origin"]
        return said["state"], said["maintenance_comments"], said["maintenance_origin"]

    assert says("lunch") == ("maintenance mode", "lunch", "local")
    assert ann.act("maintenance_comment", "w", comment="back at two") == {"w": (True, "comment: back at two")}
    told = "back at two" if session else "back at two\n\nlunch"
    assert says("lunch") == says(told) == ("maintenance mode", told, "local")
    assert ann.act("maintenance_on", "w", comment="fire") == {"w": (True, "maintenance request")}
    assert says(told) == (f"maintenance {'request' if session else 'mode'}", "fire", "admin")


def test_the_history_says_who_did_what_and_which_heartbeat_obeyed(ann, polling):
    polling.beat()
    ann.act("maintenance_on", "w", comment="x")
    polling.beat("maintenance mode", maintenance_comments="x")
    ann.act("set_concurrency", "w", slots=9)
    shown = ann.get("workers/w")
    trace = CARRIER["traceparent"].split("-")[1]
    assert [(e["to_state"], e["cause"], e["detail"], e["trace_id"]) for e in shown["events"]] == [
        ("maintenance mode", "admin:ann", "slots: 4 to 9", None),
        ("maintenance mode", "heartbeat", None, trace),
        ("maintenance request", "admin:ann", "maintenance on: x", None),
        ("idle", "heartbeat", None, trace),
        ("starting", "registered", None, trace),
    ]
    # A change of the slots is none of the state.
    assert shown["worker"]["state_cause"] == "heartbeat"
    assert shown["worker"]["state_since"] == shown["events"][1]["at"]


def test_airflow_shows_what_was_done_in_its_own_audit_log(site, ann, database):
    with database() as session:
        for name in ("a", "b"):
            register_as(session, S.IDLE, name)
    site.person("olaf").act("shutdown", "*")
    ann.act("shutdown", "a", dry_run=True)
    ann.act("remove", "a")
    ann.post("tokens", 201, worker="a")
    answer = ann.call("GET", "/api/v2/eventLogs", params={"order_by": "event_log_id"})
    entries = [entry for entry in answer.json()["event_logs"] if entry["event"].startswith("edge_")]
    assert [(entry["event"], entry["owner"]) for entry in entries] == [
        ("edge_worker_shutdown", "olaf"),
        ("edge_token_create", "ann"),
    ]
    assert entries[0]["extra"] == '{"workers": ["a", "b"], "kind": "shutdown"}'
    assert "ewt_" not in answer.text


def test_a_dry_run_tells_the_same_and_changes_nothing(ann, database, audit_log):
    with database() as session:
        for number, state in enumerate(S):
            register_as(session, state, f"w{number:02}", queues=["a"])
    asked = {
        "maintenance_on": {"comment": "x"},
        "maintenance_off": {},
        "maintenance_comment": {"comment": "y"},
        "add_queues": {"queues": ["b"]},
        "remove_queues": {"queues": ["a"]},
        "set_concurrency": {"slots": 9},
        "shutdown": {},
        "remove": {},
    }
    before = ann.get("workers")
    dry = {kind: ann.act(kind, "*", "nobody", dry_run=True, **fields) for kind, fields in asked.items()}
    after = ann.get("workers")
    assert [row | {"heartbeat_age": 0} for row in before["workers"]] == [
        row | {"heartbeat_age": 0} for row in after["workers"]
    ]
    with database() as session:
        assert {len(history(session, row["name"])) for row in after["workers"]} == {1}
    assert audit_log() == []
    for kind, fields in asked.items():
        with database() as session:
            for name in dry[kind].keys() - {"nobody"}:
                session.execute(update(Worker).where(Worker.name == name).values(state=list(S)[int(name[1:])]))
                session.execute(update(Worker).where(Worker.name == name).values(queues=["a"]))
                session.execute(update(Worker).where(Worker.name == name).values(slots_wanted=None))
        assert ann.act(kind, "*", "nobody", **fields) == dry[kind]


@pytest.mark.parametrize("selection", [{}, {"names": []}, {"search": ""}, {"states": []}])
def test_all_workers_are_meant_only_where_that_is_said(ann, database, selection):
    with database() as session:
        register_as(session, S.IDLE, "w")
    said = ann.post("actions", 422, selection=selection, action={"kind": "shutdown"})
    assert "All of them: the name `*`" in said["detail"]
    with database() as session:
        assert workers.get(session, "w").state == S.IDLE


def test_workers_are_selected_by_queue_state_team_and_part_of_the_name(ann, database):
    with database() as session:
        register_as(session, S.IDLE, "a1", queues=["q"])
        register_as(session, S.RUNNING, "a2", queues=["q"])
        register_as(session, S.IDLE, "a3", team="red")
        register_as(session, S.IDLE, "b", queues=["other"])

    def reached(**selection):
        said = ann.post("actions", selection=selection, action={"kind": "shutdown"}, dry_run=True)
        return [outcome["worker"] for outcome in said]

    assert reached(queues=["q"]) == ["a1", "a2", "a3"]
    assert reached(queues=["q"], states=["idle"], search="A") == ["a1", "a3"]
    assert reached(team="red") == ["a3"]
    assert reached(names=["b", "a[12]"]) == ["a1", "a2", "b"]
    assert reached(states=["unknown"]) == []


def test_jobs_are_found_by_whole_names_as_well_as_by_parts(ann, database):
    with database() as session:
        for queue, team in (("gpu", "red"), ("gpu-2", "red"), ("cpu", None)):
            queue_job(session, NOW, queue=queue, team=team, kind="callback", dag_id="ExecuteCallback")

    def queues(**wanted):
        return sorted(job["queue"] for job in ann.get("jobs", **wanted)["jobs"])

    assert queues(queue="gpu") == queues(team="red") == ["gpu", "gpu-2"]
    assert queues(queue_is="gpu") == ["gpu"]
    assert queues(queue_is="gp") == queues(team="re") == queues(worker_is="w") == []


@pytest.mark.parametrize("slots", [True, "3", 0, 100_001, 1.5, None])
def test_slots_that_are_none_are_refused_in_words(ann, database, slots):
    with database() as session:
        register_as(session, S.IDLE, "w")
    said = ann.act("set_concurrency", "w", slots=slots, status=422)
    assert said["detail"].endswith("slots: the number of slots is a whole one from 1 to 100000")
    with database() as session:
        assert workers.get(session, "w").slots_wanted is None


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\nb", "a\x7f", "\u202eupg", "a\u2066b"])
def test_a_queue_whose_name_would_mislead_is_not_added_and_may_be_removed(ann, database, name):
    with database() as session:
        register_as(session, S.IDLE, "w", queues=["a", name])
    said = ann.act("add_queues", "w", queues=[name], status=422)
    assert "the name of a queue has no control characters" in said["errors"][0]["msg"]
    assert "no control characters" in ann.post("tokens", 422, worker="w", queues=[name])["detail"]
    assert ann.act("remove_queues", "w", queues=[name]) == {"w": (True, "queues: a")}


def test_two_administrators_at_once_are_both_served(site, database):
    with database() as session:
        for number in range(120):
            register_as(session, S.IDLE, f"w{number:03}")
    ann, olaf = site.person("ann"), site.person("olaf")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ann.act, "maintenance_on", "*", comment="ann's")
        second = pool.submit(olaf.act, "set_concurrency", "*", slots=3)
        assert {done for done, _ in (*first.result().values(), *second.result().values())} == {True}
        assert len(first.result()) == len(second.result()) == 120
    with database() as session:
        found = workers.every(session)
        assert {(w.state, w.slots_wanted, w.maintenance_comment) for w in found} == {
            (S.MAINTENANCE_REQUEST, 3, "ann's")
        }
        assert {len(history(session, w.name)) for w in found} == {3}


def test_ten_thousand_names_are_taken_and_one_more_is_not(ann, database):
    with database() as session:
        register_as(session, S.IDLE, "w9")
    names = [f"w{number}" for number in range(10_000)]
    said = ann.act("shutdown", *names, dry_run=True)
    assert len(said) == 10_000
    assert said["w9"] == (True, "shutdown request")
    assert {text for name, (_, text) in said.items() if name != "w9"} == {"No worker of this name is registered."}
    assert "at most 10000" in ann.act("shutdown", *names, "w", status=422)["detail"]
    assert "more than 64 globs" in ann.act("shutdown", *(["a*"] * 65), status=422)["detail"]
    answer = ann.call("GET", f"{MOUNT}/ui/workers", params={"name": ["a*"] * 65})
    assert answer.status_code == 422
    assert ann.call("GET", f"{MOUNT}/ui/workers", params={"queue": ["a"] * 65}).status_code == 422


def test_lists_are_asked_for_by_what_is_in_their_address(ann, database):
    with database() as session:
        for number in range(5):
            worker = register(session, f"w{number}", NOW + timedelta(seconds=number), queues=["a&b"])
            worker.state = S.IDLE if number % 2 else S.RUNNING
    page = ann.get("workers", name=["w*", "x"], queue="a&b", state="running", sort="heartbeat", limit=2)
    assert ([row["name"] for row in page["workers"]], page["total"]) == (["w4", "w2"], 3)
    assert page["states"] == {"idle": 2, "running": 3}
    assert [row["name"] for row in ann.get("workers", descending=True, offset=3)["workers"]] == ["w1", "w0"]
    for wrong in ({"limit": 501}, {"limit": 0}, {"offset": -1}, {"sort": "secret"}, {"state": "flying"}, {"x": 1}):
        answer = ann.call("GET", f"{MOUNT}/ui/workers", params=wrong)
        assert (answer.status_code, answer.json()["error"]) == (422, "BadInput")
    for path in ("queues", "workers/w0", "workers/w9"):
        answer = ann.call("GET", f"{MOUNT}/ui/{path}", params={"x": 1})
        assert (answer.status_code, answer.json()["error"]) == (422, "BadInput")
    assert ann.call("GET", f"{MOUNT}/ui/workers/w9").status_code == 404
    assert ann.call("GET", f"{MOUNT}/ui/workers/two words").status_code == 422
