"""What PostgreSQL tells API servers: told when it is committed, and other databases tell nothing."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Iterator
from datetime import timedelta
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from airflow_database import use
from rows import NOW, claim, queue_job, register
from served import registration, wish
from sqlalchemy import event, text

from edge_otel.api import listening
from edge_otel.api.listening import Listening
from edge_otel.models import jobs, reports, tokens, upkeep, wakeup, wishes
from edge_otel.models.database import DatabaseFailure
from edge_otel.models.tables import Job
from edge_otel.models.wakeup import Listener
from edge_otel.state import JobState, Verdict

DAY = timedelta(days=1)
DRIVERS = [driver for driver in ("psycopg2", "psycopg") if find_spec(driver)]
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture
def listener(database) -> Iterator[Listener]:
    found = Listener.open()
    assert found is not None
    yield found
    found.close()


def heard(database, listener: Listener) -> list[str]:
    """Return what was told so far: all that comes before a last word of our own."""
    with database() as session:
        wakeup.announce(session, "last")
    said: list[str] = []
    while "last" not in said:
        assert select.select([listener], [], [], 10)[0], f"nothing but {said}"
        said += listener.drain()
    return said[:-1]


@on_postgresql
def test_queued_jobs_are_told_once_and_not_before_they_are_committed(database, listener):
    with database() as session:
        for _ in range(3):
            queue_job(session, NOW)
        assert heard(database, listener) == []
    assert heard(database, listener) == ["jobs"]
    with database() as session:
        queue_job(session, NOW)
    assert heard(database, listener) == ["jobs"]


@on_postgresql
def test_jobs_that_are_rolled_back_are_told_to_nobody(database, listener):
    with database() as session:
        queue_job(session, NOW)
        session.rollback()
    assert heard(database, listener) == []


@on_postgresql
def test_a_job_behind_a_savepoint_that_was_rolled_back_is_told(database, listener):
    with database() as session:
        with session.begin_nested() as savepoint:
            queue_job(session, NOW)
            savepoint.rollback()
        queue_job(session, NOW)
    assert heard(database, listener) == ["jobs"]


@on_postgresql
def test_many_jobs_of_one_transaction_cost_one_statement(database):
    from airflow import settings

    said = []

    def note(conn, cursor, statement, *_) -> None:
        if "pg_notify" in statement:
            said.append(statement)

    event.listen(settings.engine, "before_cursor_execute", note)
    try:
        for _ in range(2):
            with database() as session:
                for _ in range(5):
                    queue_job(session, NOW)
                session.commit()
                queue_job(session, NOW)
    finally:
        event.remove(settings.engine, "before_cursor_execute", note)
    assert len(said) == 4


def _offer_expires(session) -> None:
    upkeep.return_expired_offers(session, None, NOW + DAY)


def _worker_starts_anew(session) -> None:
    upkeep.return_offers_of(session, "w", [], NOW)


def _worker_declines(session) -> None:
    job = session.query(Job).one()
    reports.record_all(session, [reports.Report("w", job.id, job.claim, JobState.QUEUED)], NOW)


def test_a_stale_report_names_the_queue_of_the_job_that_is_another_s(database):
    with database() as session:
        queue_job(session, NOW)
        job = claim(session, register(session, "w", NOW), NOW)
        stale = reports.Report("former", job.id, job.claim, JobState.RUNNING)
        gone = reports.Report("w", str(uuid4()), 1, JobState.RUNNING)
        found = reports.record_all(session, [stale, gone], NOW)
    assert [(recorded.verdict, recorded.queue) for recorded in found] == [
        (Verdict.STALE, "default"),
        (Verdict.STALE, ""),
    ]


@on_postgresql
@pytest.mark.parametrize("happens", [_offer_expires, _worker_starts_anew, _worker_declines])
def test_jobs_that_are_back_in_the_queue_are_told(database, listener, happens):
    with database() as session:
        worker = register(session, "w", NOW)
        queue_job(session, NOW)
        claim(session, worker, NOW)
    assert heard(database, listener) == ["jobs"]
    with database() as session:
        happens(session)
    assert heard(database, listener) == ["jobs"]
    with database() as session:
        _offer_expires(session)
        _worker_starts_anew(session)
    assert heard(database, listener) == []


@on_postgresql
def test_a_job_that_a_polling_worker_declines_is_told(database, api, token, listener):
    api.call("POST", "/v1/worker/w", token, json=registration("idle"))
    with database() as session:
        queue_job(session, NOW)
    job = api.call("POST", "/v1/jobs/fetch/w", token, json=wish()).json()
    assert "jobs" in heard(database, listener)
    body = {"task_instance_id": job["task_instance_id"], "claim": job["claim"]}
    for told in (["jobs"], []):
        answer = api.call("PATCH", "/v1/jobs/state/dag/task/run/1/-1/queued", token, json=body)
        assert (answer.status_code, heard(database, listener)) == (200 if told else 409, told)


def _wish_maintenance(session) -> None:
    wishes.request_maintenance(session, "w", None, NOW, by="me")


def _end_maintenance(session) -> None:
    _wish_maintenance(session)
    wishes.end_maintenance(session, "w", NOW, by="me")


def _wish_shutdown(session) -> None:
    wishes.request_shutdown(session, "w", NOW, by="me")


def _wish_slots(session) -> None:
    wishes.set_concurrency(session, "w", 2, NOW, by="ann")


def _wish_queues(session) -> None:
    wishes.change_queues(session, "w", ["gpu"], [], NOW, by="ann")


@on_postgresql
@pytest.mark.parametrize("ask", [_wish_maintenance, _end_maintenance, _wish_shutdown, _wish_slots, _wish_queues])
def test_what_an_administrator_wants_of_a_worker_is_told(database, listener, ask):
    with database() as session:
        register(session, "w", NOW)
        register(session, "other", NOW)
    assert heard(database, listener) == []
    with database() as session:
        ask(session)
    assert heard(database, listener) == ["worker:w"]


@on_postgresql
def test_a_revoked_or_rotated_token_is_told_to_the_workers_that_hold_it(database, listener):
    with database() as session:
        ids = [
            tokens.create(session, worker="w*", queues=None, team=None, lifetime=DAY, now=NOW, by=None)[0].id
            for _ in range(2)
        ]
        for name, token_id in (("w1", ids[0]), ("w2", ids[0]), ("w3", ids[1])):
            register(session, name, NOW, token_id=token_id)
    with database() as session:
        tokens.revoke(session, ids[0], NOW)
    assert sorted(heard(database, listener)) == ["worker:w1", "worker:w2"]
    with database() as session:
        tokens.rotate(session, ids[1], overlap=timedelta(0), now=NOW, by=None)
    assert heard(database, listener) == ["worker:w3"]


@on_postgresql
def test_a_job_that_nobody_wants_any_more_is_told_to_its_worker(database, listener):
    with database() as session:
        worker = register(session, "w", NOW)
        running, settled, queued = (queue_job(session, NOW + timedelta(seconds=n)) for n in range(3))
        for _ in range(2):
            jobs.record_report(claim(session, worker, NOW), JobState.RUNNING, 1, NOW)
    assert heard(database, listener) == ["jobs"]
    for end in (
        lambda session: upkeep.withdraw(session, running, NOW),
        lambda session: upkeep.settle(session, settled, 1, JobState.LOST, "why", NOW),
    ):
        with database() as session:
            end(session)
        assert heard(database, listener) == ["worker:w"]
    with database() as session:
        upkeep.withdraw(session, queued, NOW)
    assert heard(database, listener) == []


@on_postgresql
@pytest.mark.parametrize("driver", DRIVERS)
def test_every_driver_hears_and_what_it_holds_is_not_of_the_pool(database, database_url, driver):
    from airflow import settings

    use(database_url.replace("+psycopg2", f"+{driver}"))
    try:
        listener = Listener.open()
        assert listener is not None
        assert settings.engine.pool.checkedout() == 0
        assert listener.drain() == []
        with database() as session:
            queue_job(session, NOW)
            workers_name = "w" * 64
            wakeup.announce_worker(session, workers_name)
        assert heard(database, listener) == ["jobs", f"worker:{workers_name}"]
        listener.close()
    finally:
        use(database_url)


@on_postgresql
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_connection_that_died_is_readable_and_raises(database, database_url, driver):
    use(database_url.replace("+psycopg2", f"+{driver}"))
    try:
        listener = Listener.open()
        with database() as session:
            others = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            assert session.scalars(others).all() == [True]
        assert select.select([listener], [], [], 10)[0]
        with pytest.raises(Exception, match=r"terminat|closed|lost"):
            while True:
                listener.drain()
        listener.close()
    finally:
        use(database_url)


@on_postgresql
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_connection_that_died_is_left_and_another_one_opened(database, database_url, driver, monkeypatch):
    use(database_url.replace("+psycopg2", f"+{driver}"))
    monkeypatch.setattr(listening, "AGAIN_AFTER", 0.1)
    failures: list[dict[str, Any]] = []

    def terminate() -> None:
        with database() as session:
            others = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            assert session.scalars(others).all() == [True]

    async def listen() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        heard = SimpleNamespace(told=False, wake=lambda: None)
        loop = Listening(heard, SimpleNamespace(note=lambda name: None))
        task = asyncio.create_task(loop.run())
        async with asyncio.timeout(30):
            for _ in range(3):
                while not heard.told:
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(terminate)
                while heard.told:
                    await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        loop.close()

    try:
        asyncio.run(listen())
        assert failures == []
    finally:
        use(database_url)


@on_postgresql
def test_a_database_that_is_away_cannot_be_listened_to(database, database_url):
    use(database_url.rpartition("/")[0] + "/nowhere")
    try:
        with pytest.raises(DatabaseFailure):
            Listener.open()
    finally:
        use(database_url)


@pytest.mark.parametrize("database_url", ["sqlite", "mysql"], indirect=True)
def test_other_databases_tell_nothing(database):
    assert Listener.open() is None
    with database() as session:
        register(session, "w", NOW)
        queue_job(session, NOW)
        wishes.set_concurrency(session, "w", 2, NOW, by="ann")
    with database() as session:
        assert session.query(Job).count() == 1
