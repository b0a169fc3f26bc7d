"""Many at once, over real sockets and connections: every request is answered with a word, and the rows are right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from rows import NOW, claim, queue_job, register
from served import new_token, registration, wish
from sqlalchemy import func, select, text
from sqlalchemy.exc import TimeoutError as NoConnection

import edge_otel.executor as executor_module
from edge_otel.errors import WorkerActive
from edge_otel.executor import EdgeExecutor
from edge_otel.models import jobs, logs, tokens, upkeep, wishes, workers
from edge_otel.models.database import DatabaseFailure, passing
from edge_otel.models.session import hasty_session
from edge_otel.models.tables import Job, LogChunk, Token, Worker
from edge_otel.state import JobState, WorkerState

AT_ONCE = 8
LIMITS = ("lock_timeout", "idle_in_transaction_session_timeout")


def at_once(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Do the work for all items in threads that begin together."""
    items = list(items)
    start = Barrier(len(items))

    def begin(item: Any) -> Any:
        start.wait(20)
        return work(item)

    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(begin, items))


def test_one_worker_that_registers_many_times_at_once_is_registered_once(api, token, database):
    def go(turn: int) -> int:
        return api.call("POST", "/v1/worker/w", token, json=registration(session=f"s{turn}")).status_code

    assert at_once(go, range(AT_ONCE)) == [200] * AT_ONCE
    with database() as session:
        assert [w.name for w in workers.every(session)] == ["w"]
        assert [e.from_state for e in workers.events_of(session, "w")].count(None) == 1


def test_of_many_tokens_at_once_one_gets_the_name(api, database):
    secrets = [new_token("w") for _ in range(AT_ONCE)]

    def go(secret: str) -> int:
        return api.call("POST", "/v1/worker/w", secret, json=registration(session=secret[4:20])).status_code

    codes = at_once(go, secrets)
    assert sorted(codes) == [200] + [409] * (AT_ONCE - 1)
    with database() as session:
        assert secrets[codes.index(200)].startswith(f"ewt_{session.get(Worker, 'w').token_id}.")


def test_workers_that_come_back_all_at_once_are_all_registered(api, database):
    token = new_token("w*")

    def go(n: int) -> list[int]:
        first = api.call("POST", f"/v1/worker/w{n}", token, json=registration())
        beats = [api.call("PATCH", f"/v1/worker/w{n}", token, json=registration("idle")) for _ in range(3)]
        return [answer.status_code for answer in (first, *beats)]

    assert at_once(go, range(16)) == [[200] * 4] * 16


def test_heartbeats_while_the_worker_is_expired_and_removed_are_answered(api, token, database):
    with database() as session:
        register(session, "w", NOW, session=None)

    def go(turn: int) -> int | None:
        if turn % 2:
            return api.call("PATCH", "/v1/worker/w", token, json=registration("idle", session=None)).status_code
        with database() as session:
            workers.expire_silent(session, 30.0, datetime.now(UTC) + timedelta(days=1))
            session.flush()
            if turn == 6:
                with suppress(WorkerActive):
                    wishes.remove(session, "w", NOW)
        return None

    assert set(at_once(go, range(AT_ONCE))) <= {None, 200, 404}


def test_jobs_that_are_revoked_while_they_are_fetched_and_reported_are_given_out_once(api, token, database):
    api.call("POST", "/v1/worker/w", token, json=registration("idle"))
    with database() as session:
        ids = [queue_job(session, NOW) for _ in range(30)]

    def go(turn: int) -> list[tuple[str, int]]:
        seen = []
        for job_id in ids[turn::AT_ONCE]:
            if turn % 2:
                with database() as session:
                    upkeep.withdraw(session, job_id, NOW)
                continue
            answer = api.call("POST", "/v1/jobs/fetch/w", token, json=wish())
            assert answer.status_code == 200, answer.text
            job = answer.json()
            if job is not None:
                body = {"task_instance_id": job["task_instance_id"], "claim": job["claim"]}
                told = api.call("PATCH", "/v1/jobs/state/dag/task/run/1/-1/running", token, json=body)
                seen.append((job["task_instance_id"], told.status_code))
        return seen

    seen = [pair for part in at_once(go, range(AT_ONCE)) for pair in part]
    assert {code for _, code in seen} <= {200, 409}
    assert max(Counter(job_id for job_id, _ in seen).values(), default=1) == 1
    with database() as session:
        confirmed = {job_id for job_id, code in seen if code == 200}
        running = set(session.scalars(select(Job.id).where(Job.state == JobState.RUNNING)))
        assert running <= confirmed


def test_logs_that_come_while_their_jobs_are_purged_are_answered_and_leave_nothing(api, token, database):
    with database() as session:
        worker = register(session, "w", NOW)
        ids = []
        for _ in range(12):
            ids.append(queue_job(session, NOW))
            job = claim(session, worker, NOW)
            jobs.record_report(job, JobState.RUNNING, 1, NOW)
            jobs.record_report(job, JobState.FAILED, 1, NOW, log_length=10**6)
            session.flush()
    headers = {"X-Claim": "1", "Content-Range": "bytes 0-9/*"}

    def go(turn: int) -> list[int]:
        if turn == 0:
            with database() as session:
                upkeep.delete_finished(session, ids, NOW)
            return []
        sent = [api.call("PATCH", f"/v2/jobs/{i}/log", token, data=b"0123456789", headers=headers) for i in ids]
        return [answer.status_code for answer in sent]

    codes = {code for part in at_once(go, range(4)) for code in part}
    assert codes <= {202, 404}
    with database() as session:
        upkeep.delete_finished(session, ids, NOW)
    with database() as session:
        assert not logs.purge(session, logs.Homes(), NOW + timedelta(days=1))
        assert session.scalar(select(func.count()).select_from(LogChunk)) == 0


def test_a_token_that_is_revoked_while_it_is_used_is_valid_or_refused(api, token, database):
    api.call("POST", "/v1/worker/w", token, json=registration())

    def go(turn: int) -> int | None:
        if turn == 3:
            with database() as session:
                tokens.revoke(session, token[4:20], datetime.now(UTC))
            return None
        return api.call("PATCH", "/v1/worker/w", token, json=registration("idle")).status_code

    assert set(at_once(go, range(AT_ONCE))) <= {None, 200, 403}
    assert api.call("PATCH", "/v1/worker/w", token, json=registration("idle")).status_code == 403
    with database() as session:
        assert session.get(Token, token[4:20]).revoked_at is not None


def test_two_schedulers_that_take_care_at_once_do_not_stand_in_each_others_way(database):
    with database() as session:
        mysql = session.get_bind().dialect.name == "mysql"
    past = NOW - timedelta(days=1)
    with database() as session:
        for n in range(20):
            worker = register(session, f"w{n}", past)
            for _ in range(3):
                queue_job(session, past, log_path=None)
                job = claim(session, worker, past)
                logs.append(session, job, job.claim, 0, b"text")
                jobs.record_report(job, JobState.FAILED, 1, past)
            queue_job(session, past)
            claim(session, worker, past)

    def care(turn: int) -> tuple[int, int, int]:
        try:
            with database() as session:
                expired = workers.expire_silent(session, 30.0, NOW)
                returned = upkeep.return_expired_offers(session, None, NOW)
                old = upkeep.outdated(session, None, NOW, NOW)
                upkeep.delete_finished(session, old, NOW)
                return len(expired), returned, len(old)
        except DatabaseFailure as failure:
            # InnoDB may end one of them as deadlocked over an index; its scheduler tries again in its next loop.
            assert mysql
            assert passing(failure)
            return care(turn)

    done = at_once(care, range(4))
    if mysql:
        # What one that was ended had locked, the others passed over.
        done.append(care(4))
    assert sum(expired for expired, _, _ in done) == 20
    assert sum(returned for _, returned, _ in done) == 20
    with database() as session:
        assert set(session.scalars(select(Job.state))) == {JobState.QUEUED}


@pytest.mark.parametrize("database_url", ["postgresql", "mysql"], indirect=True)
def test_a_claim_that_is_not_committed_blocks_no_other(database):
    with database() as session:
        first, second = register(session, "a", NOW), register(session, "b", NOW)
        ids = [queue_job(session, NOW + timedelta(seconds=n)) for n in range(2)]
    with database() as one, database() as other:
        got = [claim(one, one.merge(first), NOW), claim(other, other.merge(second), NOW)]
        assert [job.id for job in got] == ids


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_care_that_the_database_refuses_now_is_taken_later_and_the_scheduler_goes_on(database, monkeypatch, capsys):
    monkeypatch.setattr(executor_module, "_CARE_INTERVAL", timedelta(0))
    executor = EdgeExecutor(parallelism=8)
    with database() as session:
        register(session, "w", NOW)
    with database() as migration:
        migration.execute(text("LOCK TABLE edge_otel_worker"))
        executor.sync()
    assert "is tried again" in capsys.readouterr().out
    executor.sync()
    with database() as session:
        assert workers.get(session, "w").state == WorkerState.UNKNOWN


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_hasty_session_neither_waits_long_nor_keeps_others_waiting(database):
    with hasty_session() as session:
        limits = [session.scalar(text(f"SHOW {name}")) for name in LIMITS]
    assert limits == ["3s", "10s"]
    with database() as session:
        assert [session.scalar(text(f"SHOW {name}")) for name in LIMITS] == ["0", "0"]


@pytest.mark.parametrize("database_url", ["mysql"], indirect=True)
def test_a_hasty_session_leaves_its_connection_as_it_was(database):
    name = text("SELECT @@innodb_lock_wait_timeout")
    with database() as session:
        before = session.scalar(name)
    with hasty_session() as session:
        assert session.scalar(name) == 3 != before
    with database() as session:
        assert session.scalar(name) == before


def test_a_pool_without_a_connection_left_is_a_database_that_is_away(database):
    with pytest.raises(DatabaseFailure) as failure, database():
        raise NoConnection("QueuePool limit reached")
    assert passing(failure.value)
