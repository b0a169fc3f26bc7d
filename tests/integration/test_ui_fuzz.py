"""Random requests to the fleet page's API, from an administrator: no failure of the server, no answer that the document
does not know; and hostile ones, with what no page sends."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
import requests
import schemathesis
from airflow_site import MOUNT
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from rows import NOW, claim, queue_job, register_as
from schemathesis import GenerationMode
from test_api_fuzz import CHECKS, EXAMPLES

from edge_otel.api.app import create_app
from edge_otel.api.ui_access import ACTION_HEADER
from edge_otel.models import tokens
from edge_otel.settings import LogFolder, Settings
from edge_otel.state import WorkerState

on_both = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True, scope="module")
DOCUMENT = create_app(Settings(), LogFolder(Path("logs"), 0o755, 0o644), ui=True).openapi()
DOCUMENT["paths"] = {path: methods for path, methods in DOCUMENT["paths"].items() if path.startswith("/ui/")}
OPERATIONS = {op.ok().label: op.ok() for op in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()}
CASES = [
    (label, mode)
    for label, operation in OPERATIONS.items()
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or operation.body or any(operation.iter_parameters())
]
TOKEN = "0123456789abcdef"
EXISTING = {"worker_name": "w", "token_id": TOKEN}


@pytest.fixture
def ann(site, database):
    """An administrator of a fleet with worker ``w``, its jobs and its token."""
    with database() as session:
        worker = register_as(session, WorkerState.RUNNING, queues=["a"])
        for _ in range(2):
            queue_job(session, NOW, queue="a")
        claim(session, worker, NOW)
        scope = {"queues": None, "team": None, "lifetime": timedelta(days=10_000), "now": NOW, "by": None}
        token, _ = tokens.create(session, worker="w", **scope)
        token.id = TOKEN
    return site.person("ann")


@on_both
@pytest.mark.parametrize(("label", "mode"), CASES)
def test_any_request_is_answered_as_the_document_says(site, ann, label, mode):
    operation = OPERATIONS[label]
    existing = {k: v for k, v in EXISTING.items() if any(p.name == k for p in operation.path_parameters)}
    headers = {"Authorization": f"Bearer {ann.cookie}", ACTION_HEADER: "1"}
    session = requests.Session()
    session.trust_env = False

    @seed(0)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), reach=st.booleans())
    def send(case, reach):
        if reach and existing:
            case.path_parameters = (case.path_parameters or {}) | existing
        if reach and isinstance(case.body, dict) and isinstance(case.body.get("selection"), dict):
            case.body["selection"] = {"names": ["w", "*"]}
        case.headers = {k: v for k, v in (case.headers or {}).items() if k.lower() not in ("content-length", "cookie")}
        answer = case.call(base_url=site.url + MOUNT, headers=headers, session=session, timeout=20)
        if answer.text == "Invalid HTTP request received.":
            # The address is longer than what the server below the API takes.
            return
        if "%0A" in answer.request.url and answer.text == '{"detail":"Not Found"}':
            # An address with a line end is not passed on by Airflow.
            return
        case.validate_response(answer, checks=CHECKS, headers=headers)

    with session:
        send()


def test_every_route_is_typed_and_says_what_it_is_for():
    described = DOCUMENT["components"]["schemas"]
    assert len(OPERATIONS) == 10
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["description"], where
            assert operation["security"], where
            good = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
            assert all(answer["content"]["application/json"]["schema"] for answer in good), where
            assert {"401", "403", "422", "503"} <= operation["responses"].keys(), where
            assert all(described["ErrorBody"] for status in operation["responses"] if status >= "4"), where


TEXTS = [
    "\x00",
    "\ud800",
    "\U0010ffff",
    "a\r\nX-Forged: 1",
    "%s%n{0}",
    "' OR 1=1 --",
    "../../..",
    "[",
    "*a" * 32,
    "é" * 64,
]
BODIES = [
    b"",
    b"null",
    b"[]",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"selection": ' * 5_000,
    b'{"selection": {"names": ["w"]}, "action": {"kind": "set_concurrency", "slots": ' + b"9" * 5_000 + b"}}",
    b'{"selection": {"names": ["w"]}, "action": {"kind": "set_concurrency", "slots": 1e400}}',
    b'{"selection": {"names": ["w"]}, "action": {"kind": "set_concurrency", "slots": NaN}}',
    b'{"selection": {"names": ["w"]}, "action": {"kind": "\\ud800"}}',
    b'{"selection": {"names": ["w"], "\\ud800\\n": 1}, "action": {"kind": "shutdown"}}',
    b'{"selection": {"names": ["w"], "a\\nERROR forged": 1}, "action": {"kind": "shutdown"}}',
    b'{"selection": {"names": ["w"]}, "action": {"kind": "a\\nERROR forged"}}',
    b'{"selection": {"names": ["w"]}, "action": {"kind": "shutdown"}, "' + b"x" * 500_000 + b'": 1}',
    b'{"selection": {"names": [' + b"1," * 200_000 + b'1]}, "action": {"kind": "shutdown"}}',
]


@on_both
@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_body_that_no_page_sends_is_refused_in_the_one_shape(ann, body, caplog):
    headers = {ACTION_HEADER: "1", "Content-Type": "application/json"}
    with caplog.at_level("INFO", "edge_otel"):
        answer = ann.call("POST", f"{MOUNT}/ui/actions", data=body, headers=headers)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"] == "BadInput"
    assert len(answer.content) < 10_000
    (entry,) = [record.getMessage() for record in caplog.records if record.name == "edge_otel.api.refusals"]
    assert answer.json()["error_id"] in entry
    assert entry.isprintable()
    assert len(entry) < 2_000


@on_both
def test_a_body_beyond_all_bounds_is_not_read(ann):
    headers = {ACTION_HEADER: "1", "Content-Type": "application/json"}
    answer = ann.call("POST", f"{MOUNT}/ui/actions", data=b" " * 2_000_000, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (413, "TooLarge")
    assert "413" in DOCUMENT["paths"]["/ui/actions"]["post"]["responses"]


@on_both
@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_odd_texts_anywhere_are_refused_or_taken_as_they_are(ann, text):
    headers = {ACTION_HEADER: "1", "Content-Type": "application/json"}
    selection = {"names": ["w"]}
    bodies = [
        ("actions", {"selection": {"names": [text]}, "action": {"kind": "shutdown"}}),
        ("actions", {"selection": {"queues": [text]}, "action": {"kind": "shutdown"}}),
        ("actions", {"selection": {"search": text}, "action": {"kind": "shutdown"}}),
        ("actions", {"selection": {"team": text}, "action": {"kind": "shutdown"}}),
        ("actions", {"selection": selection, "action": {"kind": text}}),
        ("actions", {"selection": selection, "action": {"kind": "maintenance_on", "comment": text}}),
        ("actions", {"selection": selection, "action": {"kind": "add_queues", "queues": [text]}}),
        ("actions", {"selection": selection, "action": {"kind": "shutdown", text: text}}),
        ("tokens", {"worker": text}),
        ("tokens", {"worker": "w", "team": text}),
        ("tokens", {"worker": "w", "queues": [text]}),
        ("tokens", {text: text}),
    ]
    for path, body in bodies:
        answer = ann.call("POST", f"{MOUNT}/ui/{path}", data=json.dumps(body), headers=headers)
        assert answer.status_code in (200, 201, 422), (body, answer.text)
        assert "X-Forged" not in answer.headers
    if text != "\ud800":
        for route, keys in {
            "workers": ("name", "queue", "team", "search", "sort", "state", text),
            "queues": ("search", text),
            "jobs": ("dag_id", "task_id", "run_id", "queue", "worker", "state", text),
            "tokens": ("search", "state", text),
        }.items():
            for key in keys:
                answer = ann.call("GET", f"{MOUNT}/ui/{route}", params={key: text})
                assert answer.status_code in (200, 422), (route, key, answer.text)
    # Whatever became part of the fleet is shown.
    for path in ("workers", "workers/w", "queues", "jobs", "tokens"):
        ann.get(path)


@on_both
def test_texts_of_a_worker_come_out_as_they_went_in(site, ann):
    text = "</script><img src=x onerror=alert(1)> \u2028 \u202e \x07 é 👷"
    token = ann.post("tokens", 201, worker="odd")["token"]
    facts = {"airflow_version": "3.3.2", "edge_provider_version": "0.1.0", "concurrency": 1, text[:64]: text}
    body = {"state": "maintenance mode", "sysinfo": facts, "queues": [text], "maintenance_comments": text}
    headers = {"Authorization": f"Bearer {token}"}
    answer = site.stranger().call("POST", f"{MOUNT}/v1/worker/odd", json=body | {"session": "s"}, headers=headers)
    assert answer.status_code == 200, answer.text
    shown = ann.call("GET", f"{MOUNT}/ui/workers/odd")
    assert shown.headers["Content-Type"] == "application/json"
    assert shown.json()["facts"][text[:64]] == text
    row = shown.json()["worker"]
    assert (row["queues"], row["maintenance_comment"]) == ([text], text)
    assert text in {row["queue"] for row in ann.get("queues")["queues"]}
    assert ann.get("workers", queue=text, name="odd")["total"] == 1
