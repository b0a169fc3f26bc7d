"""A task's log is in Airflow's folder byte for byte, and once in the store, whatever fails on its way there.

Real servers on PostgreSQL, a real daemon, and a proxy between them that loses, repeats and reorders.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import psutil
import pytest
from airflow_database import use
from conftest import workload
from log_site import CHUNK, HALF, PATIENCE, Site, Task
from replicas import Replicas
from rows import queue_job
from served import new_token
from wire import Append, Deal, Wire

from demo.wait import wait_for
from edge_otel.models import upkeep
from edge_otel.models.session import new_session
from edge_otel.models.tables import Base, Job
from edge_otel.state import JobState

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture(scope="module")
def site(launcher: Replicas, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    from airflow import settings

    if database_url != settings.SQL_ALCHEMY_CONN:
        use(database_url)
    with new_session() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())
    site = Site(launcher, database_url, tmp_path_factory.mktemp("site"))
    try:
        site.serve()
        site.work()
        yield site
    finally:
        site.close()
    print(f"\n{'case':<58} {'bytes':>7} {'requests':>8} sha256", *site.rows, sep="\n")


def _words(name: str) -> str:
    for old, new in (("test_", ""), ("_", " "), ("[postgresql]", ""), ("-postgresql]", ""), ("[", " ")):
        name = name.replace(old, new)
    return name


@pytest.fixture
def task(site: Site, request: pytest.FixtureRequest) -> Iterator[Task]:
    """A task that begins."""
    yield Task(site, _words(request.node.name))
    site.wire.deal = Wire.forward


def every_other(mishap: Deal) -> Deal:
    """Return what does this to every other request, the first one included."""
    count = iter(range(10**9))
    return lambda wire, append: wire.forward(append) if next(count) % 2 else mishap(wire, append)


def lost_answer(wire: Wire, append: Append) -> None:
    """The server stores the bytes, and the worker does not hear of it."""
    wire.forward(append)


def run(site: Site, task: Task, deal: Deal) -> None:
    """Let a task log while this is done to its requests."""
    site.wire.deal = deal
    task.wait_half()
    task.go_on()
    task.prove()


def test_nothing_fails(site: Site, task: Task) -> None:
    run(site, task, Wire.forward)


def test_answer_lost_after_commit(site: Site, task: Task) -> None:
    run(site, task, every_other(lost_answer))


def test_connection_cut_mid_body(site: Site, task: Task) -> None:
    run(site, task, every_other(Wire.cut))


@pytest.mark.parametrize("dies", ["in an append, before its commit", "after an append's commit, before its answer"])
def test_api_killed(site: Site, task: Task, dies: str) -> None:
    task.wait_half()
    server = site.serve(1, dies=dies)
    site.wire.deal = lambda wire, append: wire.forward(append, 1 if server.alive else 0)
    task.go_on()
    server.wait_ended()
    task.prove()


def test_api_killed_between_the_log_file_and_its_row(site: Site, task: Task) -> None:
    task.wait_half()
    server = site.serve(1, dies="after a log's file was written, before that is stored")
    # Who gets the last bytes after the job's end writes the file.
    site.wire.deal = lambda wire, append: wire.forward(append, 1) if task.row().state == JobState.SUCCESS else None
    task.go_on()
    server.wait_ended()
    site.wire.deal = Wire.forward
    task.prove()


def test_two_replicas_take_chunks_in_turn(site: Site, task: Task) -> None:
    turn = iter(range(10**9))
    site.serve_both()
    run(site, task, lambda wire, append: wire.forward(append, next(turn) % 2))


def test_daemon_killed_and_restarted(site: Site, task: Task) -> None:
    task.wait_half()
    site.wire.deal = lambda wire, append: wire.forward(append) if append.first < HALF + CHUNK else None
    task.go_on()
    wait_for(lambda: task.stored() > HALF, "more of the log", timeout=PATIENCE, pause=0.02)
    task.wait_written()
    site.wire.deal = Wire.forward
    site.work()
    task.prove()


def test_worker_offline_for_the_whole_task(site: Site, task: Task) -> None:
    started = task.keep / "log"
    site.wire.deal = lambda wire, append: None
    wait_for(started.exists, "the task to start", timeout=PATIENCE, pause=0.02)
    site.stop()
    task.go_on()
    task.wait_written()
    assert task.stored() == 0
    site.wire.deal = Wire.forward
    site.serve()
    task.prove()


def test_same_chunk_100_times(site: Site, task: Task) -> None:
    def hundredfold(wire: Wire, append: Append) -> bytes | None:
        for _ in range(99 if append.first == CHUNK else 0):
            assert wire.forward(append) is not None
        return wire.forward(append)

    run(site, task, hundredfold)


def test_chunks_out_of_order(site: Site, task: Task) -> None:
    """All that was sent before comes again in disorder after each chunk, and now and then a chunk is passed over."""
    sent: list[Append] = []
    skipped: set[int] = set()
    shuffle = random.Random(1).shuffle

    def disorder(wire: Wire, append: Append) -> bytes | None:
        last = int(append.headers["content-range"].partition("-")[2].removesuffix("/*"))
        # Not one that is the last: of bytes that are said to be stored the worker speaks no more.
        if last - append.first + 1 == CHUNK and len(sent) % 3 == 2 and append.first not in skipped:
            skipped.add(append.first)
            return f"HTTP/1.1 202 Accepted\r\nRange: bytes=0-{last}\r\nContent-Length: 0\r\n\r\n".encode()
        answer = wire.forward(append)
        sent.append(append)
        shuffle(sent)
        for late in sent[:8]:
            assert wire.forward(late) is not None
        return answer

    run(site, task, disorder)
    assert skipped


def test_wrong_claim(site: Site, task: Task) -> None:
    task.wait_half()
    assert [task.send(site.token, claim, HALF, b"of another claim") for claim in (0, 2, 1000)] == [409] * 3
    task.go_on()
    task.prove()


def test_token_of_another_worker(site: Site, task: Task) -> None:
    task.wait_half()
    assert task.send(new_token("site-2"), 1, HALF, b"of another worker") == 403
    assert task.send(site.token + "x", 1, HALF, b"of nobody") == 403
    task.go_on()
    task.prove()


def test_job_taken_away_while_nothing_of_its_log_comes_through(site: Site, task: Task) -> None:
    site.wire.deal = lambda wire, append: None
    log = site.daemons[-1].state_dir / "jobs" / f"{task.id}-1" / "logs" / task.path
    wait_for(lambda: log.exists() and log.stat().st_size == HALF, "the first half", timeout=PATIENCE, pause=0.02)
    with new_session() as session:
        upkeep.withdraw(session, task.id, datetime.now(UTC))
    wait_for(lambda: "1" in task.row().log_ends, "the end of what ran", timeout=PATIENCE, pause=0.02)
    assert not task.row().log_complete
    site.wire.deal = Wire.forward
    wait_for(lambda: task.row().log_complete, "the log to be complete", timeout=PATIENCE, pause=0.02)
    assert (task.row().state, task.row().claim) == (JobState.LOST, 2)
    (file,) = site.folder.glob(f"disk-*/{task.path}")
    assert file.read_bytes() == task.expected[:HALF]


def test_next_try_under_its_id_begins_before_anything_of_its_log_has_come(site: Site, task: Task) -> None:
    site.wire.deal = lambda wire, append: None
    wait_for((task.keep / "log").exists, "the task to start", timeout=PATIENCE, pause=0.02)
    site.stop()
    task.go_on()
    task.wait_written()
    path = task.path.replace("attempt=1", "attempt=2")
    order = json.dumps(workload(r"log(b'another try\n')", log_path=path))
    with new_session() as session:
        assert upkeep.settle(session, task.id, 1, JobState.LOST, "Given up.", datetime.now(UTC))
        queue_job(session, datetime.now(UTC), id=task.id, try_number=2, workload=order, log_path=path)
    site.serve()
    wait_for(lambda: task.row().state == JobState.SUCCESS, "the second try", timeout=PATIENCE, pause=0.02)
    site.wire.deal = Wire.forward
    wait_for(lambda: not site.daemons[-1].folders(), "the worker to be done", timeout=PATIENCE, pause=0.02)
    written = {file.name: file.read_bytes() for file in (site.disk(0) / task.path).parent.glob("*.log")}
    assert written == {"attempt=1.log": task.expected, "attempt=2.log": b"another try\n"}


def test_job_that_the_server_has_forgotten_while_no_daemon_ran(site: Site, task: Task) -> None:
    site.wire.deal = lambda wire, append: None
    task.go_on()
    wait_for(lambda: task.row().state == JobState.SUCCESS, "the end", timeout=PATIENCE, pause=0.02)
    with new_session() as session:
        session.delete(session.get_one(Job, task.id))
    site.wire.deal = Wire.forward
    site.work()
    wait_for(lambda: not site.daemons[-1].folders(), "the worker to be done", timeout=PATIENCE, pause=0.02)


def test_everything_at_random(site: Site, task: Task) -> None:
    chance = random.Random(2)
    mishaps: list[Deal] = [lost_answer, Wire.cut, lambda wire, append: wire.forward(append, 1)]

    def anything(wire: Wire, append: Append) -> bytes | None:
        return chance.choice(mishaps)(wire, append)

    site.serve_both()
    run(site, task, every_other(anything))


def test_line_of_100_mb(site: Site) -> None:
    """The memory that this takes is a few chunks, on either side."""
    server = psutil.Process(site.serve(chunk=512 * 1024).pid)
    daemon = psutil.Process(site.daemons[-1].pid)
    peak = before = {process: process.memory_info().rss for process in (server, daemon)}
    begun = time.monotonic()
    # Of a period that gzip sees and no chunk's size is a multiple of: what takes time is the processor alone.
    huge = Task(site, "one line without an end", half=50_000_000, line_end=".", period=16_381)
    huge.go_on()

    def complete() -> bool:
        nonlocal peak
        peak = {process: max(most, process.memory_info().rss) for process, most in peak.items()}
        return huge.row().log_complete

    wait_for(complete, "the log to be complete", timeout=4 * PATIENCE, pause=0.02)
    took = time.monotonic() - begun
    huge.prove()
    assert b"\n" not in huge.expected
    grown = [(peak[process] - before[process]) / 1e6 for process in (server, daemon)]
    print(f"\n100 MB in {took:.1f} s; more memory at its peak: server {grown[0]:.0f} MB, worker {grown[1]:.0f} MB")
    assert max(grown) < 75, "less than the line"
