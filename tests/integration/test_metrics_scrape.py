"""Scrapes: who may read metrics, what they say of the fleet, and what without a database."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import requests
from airflow_database import use
from channels import now, wait_for
from rows import claim, queue_job, register
from scrapes import scrape, value
from served import new_token
from sqlalchemy import event, text
from starlette.requests import Request

from edge_otel.api import metrics
from edge_otel.models import jobs, wishes, workers
from edge_otel.state import JobState
from edge_otel.telemetry import counters, names

on_sqlite_alone = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Let every scrape read the database, unless the test says otherwise."""
    monkeypatch.setattr(metrics, "KEPT", 0.0)


def of_fleet(api):
    """Return what is said of the fleet, without its age."""
    exposition = scrape(api)
    return exposition[
        exposition.index("# HELP edge_worker_state ") : exposition.index(f"# HELP {names.SNAPSHOT_AGE.name}")
    ]


@on_postgresql
def test_every_replica_says_the_same_of_the_fleet(start_api, database):
    with database() as session:
        worker = register(session, "w", now(), queues=["a"], connection=str(uuid4()))
        for _ in range(3):
            queue_job(session, now(), queue="a", slots=2)
        ended, _ = [claim(session, worker, now()) for _ in range(2)]
        jobs.record_report(ended, JobState.FAILED, ended.claim, now())
    with database() as session:
        # Ages of jobs depend on the moment.
        session.execute(text("UPDATE edge_otel_job SET queued_at = queued_at + interval '1 hour'"))
    first, second = start_api(), start_api()
    assert of_fleet(first) == of_fleet(second)
    said = scrape(second)
    assert value(said, names.QUEUE_WORKERS, queue="a", team="") == 1
    assert value(said, names.QUEUE_SLOTS_USED, queue="a", team="") == 2
    assert value(said, names.WORKER_SLOTS_USED, worker="w", team="") == 2
    assert value(said, names.QUEUE_OLDEST, queue="a", team="") == 0, "queued in an hour"


def test_a_silent_worker_keeps_its_time_becomes_unknown_and_vanishes_when_it_is_removed(start_api, database):
    api = start_api()
    heard = now().replace(microsecond=0) - timedelta(hours=1)
    with database() as session:
        register(session, "w", heard)
    assert value(scrape(api), names.WORKER_STATES, worker="w", team="", state="starting") == 1
    with database() as session:
        assert workers.expire_silent(session, 30.0, now()) == ["w"]
    said = scrape(api)
    assert value(said, names.WORKER_STATES, worker="w", team="", state="starting") == 0
    assert value(said, names.WORKER_STATES, worker="w", team="", state="unknown") == 1
    assert value(said, names.WORKER_STATE_CODE, worker="w", team="") == names.STATE_CODES["unknown"]
    assert value(said, names.WORKER_LAST_HEARTBEAT, worker="w", team="") == heard.timestamp()
    with database() as session:
        wishes.remove(session, "w", now())
    assert 'worker="w"' not in scrape(api)


def test_a_snapshot_takes_as_many_statements_for_many_workers_as_for_one(start_api, database):
    from airflow import settings

    api = start_api()
    asked = []
    note = lambda *args: asked.append(args[2])  # noqa: E731
    event.listen(settings.engine, "before_cursor_execute", note)
    try:
        numbers = []
        for names_of in (["w"], [f"w{i}" for i in range(30)]):
            with database() as session:
                for name in names_of:
                    register(session, name, now())
            asked.clear()
            scrape(api)
            numbers.append(len([statement for statement in asked if "edge_otel" in statement]))
    finally:
        event.remove(settings.engine, "before_cursor_execute", note)
    assert numbers == [3, 3]


@on_postgresql
def test_scrapes_at_once_make_one_read(start_api, database, monkeypatch):
    from airflow import settings

    monkeypatch.setattr(metrics, "KEPT", 60.0)
    api = start_api()
    reads = []
    note = lambda *args: reads.append(args[2]) if "FROM edge_otel_worker" in args[2] else None  # noqa: E731
    event.listen(settings.engine, "before_cursor_execute", note)
    try:
        with ThreadPoolExecutor(25) as threads:
            answers = list(threads.map(lambda _: requests.get(f"{api.url}/metrics", timeout=20), range(50)))
    finally:
        event.remove(settings.engine, "before_cursor_execute", note)
    assert {answer.status_code for answer in answers} == {200}
    assert len(reads) == 1


@on_sqlite_alone
def test_without_a_database_the_process_is_still_told_of_and_the_snapshot_ages(start_api, database_url, database):
    api = start_api()
    with database() as session:
        register(session, "w", now())
    assert 'worker="w"' in scrape(api)
    use("postgresql+psycopg2://nobody@127.0.0.1:1/nothing")
    try:
        first, second = scrape(api), scrape(api)
    finally:
        use(database_url)
    for said in (first, second):
        assert "edge_heartbeats_total" in said
        assert "edge_worker_state" not in said
    assert 0 < value(first, names.SNAPSHOT_AGE) < value(second, names.SNAPSHOT_AGE)
    assert 'worker="w"' in scrape(api)


@on_postgresql
def test_a_database_that_does_not_answer_holds_nobody_up(start_api, database, monkeypatch):
    monkeypatch.setattr(metrics, "WITHIN", 0.2)
    api = start_api()
    with database() as session:
        register(session, "w", now())
    with database() as session:
        session.execute(text("LOCK TABLE edge_otel_worker IN ACCESS EXCLUSIVE MODE"))
        began = datetime.now(UTC)
        with ThreadPoolExecutor(10) as threads:
            said = list(threads.map(lambda _: requests.get(f"{api.url}/metrics", timeout=20).text, range(20)))
        assert datetime.now(UTC) - began < timedelta(seconds=2)
        ages = [value(requests.get(f"{api.url}/metrics", timeout=20).text, names.SNAPSHOT_AGE) for _ in range(3)]
        assert ages == sorted(ages)
    assert all("edge_heartbeats_total" in one and "edge_worker_state" not in one for one in said)
    wait_for(lambda: 'worker="w"' in scrape(api), "the fleet to be there again")


PROXIES = [
    {"X-Forwarded-For": "127.0.0.1"},
    {"Forwarded": "for=127.0.0.1"},
    {"X-Real-IP": "127.0.0.1"},
    {"X-Forwarded-Proto": "https"},
    {"Via": "1.1 edge"},
]


@on_sqlite_alone
@pytest.mark.parametrize(
    ("token", "right", "wrong"),
    [
        ("", [], ["Bearer ", "Bearer", "Bearer x"]),
        ("secret", ["Bearer secret", "bearer  secret "], ["Bearer Secret", "Bearer secret2", "Basic secret", "secret"]),
        ("sécret", [b"Bearer s\xc3\xa9cret"], [b"Bearer s\xe9cret"]),
    ],
)
def test_from_elsewhere_metrics_are_read_with_their_token_alone(start_api, token, right, wrong):
    api = start_api(metrics_token=token)
    assert api.call("GET", "/metrics").status_code == (403 if token else 200), "from this host"
    for proxy in PROXIES:
        refused = [api.call("GET", "/metrics", headers=proxy | {"Authorization": sent}) for sent in ["", *wrong]]
        assert [answer.status_code for answer in refused] == [403] * len(refused)
        assert {answer.json()["error"] for answer in refused} == {"MetricsForbidden"}
        assert "[edge] metrics_token" in refused[0].json()["detail"]
        allowed = [api.call("GET", "/metrics", headers=proxy | {"Authorization": sent}) for sent in right]
        assert [answer.status_code for answer in allowed] == [200] * len(allowed)


@on_sqlite_alone
def test_a_worker_s_token_opens_no_metrics(start_api, database):
    api = start_api(metrics_token="secret")
    assert api.call("GET", "/metrics", new_token("w"), headers=PROXIES[0]).status_code == 403


@pytest.mark.parametrize(
    ("client", "local"),
    [
        (("127.0.0.1", 1), True),
        (("127.8.9.1", 1), True),
        (("::1", 1), True),
        (("::ffff:127.0.0.1", 1), True),
        (("10.0.0.1", 1), False),
        (("::ffff:10.0.0.1", 1), False),
        (("2001:db8::1", 1), False),
        (("localhost", 1), False),
        (("", 0), False),
        (None, False),
    ],
)
def test_local_is_who_comes_from_a_loopback_address(client, local):
    request = Request({"type": "http", "client": client, "headers": []})
    assert metrics.is_direct(request) is local


@on_sqlite_alone
def test_an_answer_is_compressed_only_if_asked_for(start_api, database):
    api = start_api()
    plain = api.call("GET", "/metrics", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    small = api.call("GET", "/metrics", headers={"Accept-Encoding": "deflate, gzip"})
    assert small.headers["content-encoding"] == "gzip"
    assert int(small.headers["content-length"]) < int(plain.headers["content-length"]) / 2
    assert small.text.startswith("# HELP edge_")


def test_a_shared_folder_that_is_not_there_is_made(tmp_path):
    folder = tmp_path / "not" / "yet"
    env = {**os.environ, counters.SHARED_FOLDER: str(folder)}
    subprocess.run([sys.executable, "-c", "import edge_otel.telemetry.counters"], env=env, check=True)
    assert list(folder.iterdir())
