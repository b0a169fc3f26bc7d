"""Failures: one shape everywhere, the right status, and nothing said that should not be."""

from __future__ import annotations

import logging
import socket
from uuid import uuid4

import pytest
from airflow_database import use
from served import registration, wish
from sqlalchemy import text

from demo.wait import wait_for
from edge_otel.models.database import EdgeDBManager

DEEP = "[" * 100_000

on_sqlite_alone = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what does not get as far as the database."""


def shape_of(answer):
    """Check that an answer has the one shape, and return its body."""
    body = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert {"error", "detail", "error_id"} <= body.keys() <= {"error", "detail", "error_id", "errors"}
    assert body["error"].isidentifier()
    assert body["detail"]
    assert len(body["error_id"]) == 32
    return body


@on_sqlite_alone
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/", 404),
        ("GET", "/v1/worker/w", 405),
        ("DELETE", "/v1/health", 405),
        ("PATCH", "/v1/worker/w", 403),
    ],
)
def test_every_refusal_has_the_one_shape(api, method, path, status):
    answer = api.call(method, path)
    assert answer.status_code == status
    shape_of(answer)


@on_sqlite_alone
def test_a_method_that_is_not_there_names_those_that_are(api):
    assert "POST" in api.call("PUT", "/v1/jobs/fetch/w").headers["Allow"]


@on_sqlite_alone
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        DEEP.encode(),
        b'{"state": "idle"}',
        b'{"state": "flying", "sysinfo": {}}',
        b'{"state": "idle", "sysinfo": {"a": NaN}}',
        b'{"state": "idle", "sysinfo": {"a": 1e999}}',
        b'{"state": "idle", "sysinfo": {"a": [1]}}',
        b'{"state": "idle", "sysinfo": {"a": ' + b"9" * 5000 + b"}}",
        b'{"state": "idle", "sysinfo": {}, "jobs_active": -1}',
        b'{"state": "idle", "sysinfo": {}, "jobs_active": 99999999999999999999}',
        b'{"state": "idle", "sysinfo": {}, "queues": "a"}',
        b'{"state": "idle", "sysinfo": {}, "queues": ["\\u0000"]}',
        b'{"state": "idle", "sysinfo": {}, "queues": ["\\ud800"]}',
        b'{"state": "idle", "sysinfo": {"a": "\\ud800"}}',
        b'{"state": "idle", "sysinfo": {}, "session": "two words"}',
        b'{"state": "idle", "sysinfo": {}, "jobs": [{"id": "1", "claim": 1}]}',
    ],
)
def test_a_malformed_body_is_answered_422_with_where(api, token, body):
    answer = api.call("POST", "/v1/worker/w", token, data=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert shape_of(answer)["error"] == "BadInput"


@on_sqlite_alone
def test_what_was_wrong_is_named_and_the_input_is_not_repeated(api, token):
    answer = api.call("POST", "/v1/worker/w", token, json={"state": "idle", "sysinfo": {}, "queues": [7, "hush" * 99]})
    body = shape_of(answer)
    assert body["errors"][0]["loc"] == ["body", "queues", 0]
    assert "queues" in body["detail"]
    assert "hush" not in answer.text


@on_sqlite_alone
@pytest.mark.parametrize("name", ["%00", "a%00b", "a" * 65, "-a", "a b", "%F0%9F%98%80", "..%2fb", "%ff"])
def test_a_name_that_is_none_is_refused(api, token, name):
    answer = api.call("POST", f"/v1/worker/{name}", token, json=registration())
    assert answer.status_code in (403, 404, 405, 422), answer.text
    shape_of(answer)


@on_sqlite_alone
@pytest.mark.parametrize(
    "part", ["d/t/r/1/99999999999999999999", "d/t/r/x/-1", "d/t/r/1/-2", "%00/t/r/1/-1", "d/t/" + "r" * 251 + "/1/-1"]
)
def test_coordinates_that_are_none_are_answered_422(api, token, part):
    answer = api.call("PATCH", f"/v1/jobs/state/{part}/success", token, json={})
    assert answer.status_code == 422, answer.text
    shape_of(answer)


@on_sqlite_alone
def test_a_declared_length_over_the_limit_is_refused_before_it_is_read(api, token):
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as raw:
        raw.sendall(b"POST /v1/worker/w HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 413 ")


@on_sqlite_alone
def test_a_body_that_grows_over_the_limit_is_refused(api, token):
    answer = api.call(
        "POST",
        "/v1/worker/w",
        token,
        data=(b" " * 65536 for _ in range(20)),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 413
    assert shape_of(answer)["error"] == "TooLarge"


@on_sqlite_alone
def test_a_log_may_be_larger_than_the_rest_but_not_without_limit(api, token):
    path = "/v2/jobs/00000000-0000-0000-0000-000000000000/log"
    headers = {"X-Claim": "1", "Content-Range": "bytes 0-2097151/*"}
    assert api.call("PATCH", path, token, data=bytes(2 * 1024 * 1024), headers=headers).status_code == 404
    answer = api.call("PATCH", path, token, data=(bytes(65536) for _ in range(257)), headers=headers)
    assert answer.status_code == 413
    shape_of(answer)


def test_missing_tables_are_answered_503_with_what_to_do(api, token, database):
    with database() as session:
        version = session.scalar(text(f"SELECT version_num FROM {EdgeDBManager.version_table_name}"))
        session.execute(text("ALTER TABLE edge_otel_worker RENAME TO edge_otel_away"))
        session.execute(text(f"UPDATE {EdgeDBManager.version_table_name} SET version_num = '0000'"))
    try:
        answer = api.call("POST", "/v1/worker/w", token, json=registration())
        ready = api.call("GET", "/readyz")
        alive = api.call("GET", "/livez")
    finally:
        with database() as session:
            session.execute(text("ALTER TABLE edge_otel_away RENAME TO edge_otel_worker"))
            session.execute(text(f"UPDATE {EdgeDBManager.version_table_name} SET version_num = :was"), {"was": version})
    assert (answer.status_code, shape_of(answer)["error"]) == (503, "NotMigrated")
    assert "airflow db migrate" in answer.json()["detail"]
    assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
    assert "airflow db migrate" in ready.json()["detail"]
    assert alive.status_code == 200


@pytest.fixture
def no_database(api, database_url):
    """Let the code under test find nobody at the database's address."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        use(f"postgresql+psycopg2://nobody@127.0.0.1:{closed.getsockname()[1]}/nothing")
        yield
    use(database_url)


@on_sqlite_alone
def test_an_unreachable_database_is_answered_503(api, token, no_database, caplog):
    for method, path, body in (("POST", "/v1/worker/w", registration()), ("POST", "/v1/jobs/fetch/w", wish())):
        answer = api.call(method, path, token, json=body)
        assert (answer.status_code, shape_of(answer)["error"]) == (503, "DatabaseUnavailable")
        assert "127.0.0.1" not in answer.text
    assert api.call("GET", "/readyz").status_code == 503
    assert api.call("GET", "/livez").status_code == 200


@on_sqlite_alone
def test_an_unexpected_failure_is_answered_500_and_found_by_its_id(api, token, monkeypatch, caplog):
    monkeypatch.setattr("edge_otel.api.registration.airflow_version", None)
    with caplog.at_level(logging.INFO):
        answer = api.call("POST", "/v1/worker/w", token, json=registration())
    assert answer.status_code == 500
    body = shape_of(answer)
    assert body["error"] == "EdgeError"
    assert "None" not in answer.text
    assert body["error_id"] in caplog.text
    assert "Traceback" in caplog.text


@on_sqlite_alone
def test_a_link_that_breaks_within_a_request_is_no_error_of_the_server(api, token, caplog):
    with caplog.at_level(logging.DEBUG):
        with socket.create_connection(("127.0.0.1", api.port), timeout=20) as raw:
            head = (
                f"PATCH /v2/jobs/{uuid4()}/log HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nX-Claim: 1\r\n"
            )
            raw.sendall(f"{head}Content-Range: bytes 0-99/*\r\nContent-Length: 100\r\n\r\nabc".encode())
        wait_for(lambda: "went away" in caplog.text, "the broken link to be noticed", timeout=20)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@on_sqlite_alone
def test_the_reason_of_a_refusal_is_in_the_log_only(api, token, caplog):
    with caplog.at_level(logging.INFO):
        answer = api.call("POST", "/v1/worker/other", token, json=registration())
    assert answer.status_code == 403
    body = shape_of(answer)
    assert body["detail"] == f"Forbidden. The reason is in the server's log under error_id={body['error_id']}."
    reason = next(r.getMessage() for r in caplog.records if body["error_id"] in r.getMessage())
    assert "is for worker 'w', not 'other'" in reason


@on_sqlite_alone
def test_the_document_describes_every_route_with_its_errors(api):
    document = api.call("GET", "/openapi.json").json()
    assert api.call("GET", "/docs").status_code == 200
    routes = [(path, method) for path, methods in document["paths"].items() for method in methods]
    assert len(routes) == 15
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            assert described["summary"], (method, path)
            if path not in ("/v1/health", "/livez", "/readyz", "/metrics"):
                assert {"403", "404", "409", "413", "422", "503"} <= described["responses"].keys(), (method, path)
                assert described["security"], (method, path)
