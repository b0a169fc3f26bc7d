"""A task's log is in Airflow's folder byte for byte, and once in the store, whatever fails on its way there.

Real servers on PostgreSQL, a real daemon, and a proxy between them that loses, repeats and reorders.
"""

from __future__ import annotations

import hashlib
import json
import random
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from airflow_database import use
from conftest import Daemon, end, workload
from replicas import Replica, Replicas
from rows import queue_job
from served import new_token
from sqlalchemy import select
from wire import Append, Deal, Wire

from demo.process import free_port
from demo.wait import wait_for
from edge_otel.models.session import new_session
from edge_otel.models.tables import Base, Job, LogChunk
from edge_otel.state import JobState

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

CHUNK = 16 * 1024
HALF = 5 * CHUNK + 17
PATIENCE = 30.0
"""Seconds; a case takes a few."""
WRITE = """
import random
bytes_of = random.Random(workload["seed"]).randbytes
keep = Path(workload["keep"])
log(bytes_of(workload["half"]))
os.link(Path(os.environ["AIRFLOW__LOGGING__BASE_LOG_FOLDER"]) / workload["log_path"], keep / "log")
wait_for_file(keep / "go")
log(b"\\0\\r\\n\\xff" + bytes_of(workload["half"]))
"""
"""Two halves, of which the second waits for the test; a hard link to the log outlives the job's folder."""


class Site:
    """Two API servers with a disk each, and a worker that talks to the first through the wire."""

    def __init__(self, launcher: Replicas, database_url: str, folder: Path) -> None:
        self.folder = folder
        self._launcher = launcher
        self._database_url = database_url
        self._ports = (free_port(), free_port())
        self.servers: list[Replica | None] = [None, None]
        self.wire = Wire(*self._ports)
        self.token = new_token("site-1")
        (folder / "token").write_text(self.token)
        (folder / "token").chmod(0o600)
        self.daemons: list[Daemon] = []
        self.rows: list[str] = []

    def disk(self, index: int) -> Path:
        """Return where a server writes the logs of tasks."""
        return self.folder / f"disk-{index}"

    def serve(self, index: int = 0, dies: str | None = None) -> Replica:
        """Start a server, in place of the one before it."""
        self.stop(index)
        server = self._launcher.start(
            self._database_url,
            port=self._ports[index],
            dies=dies,
            logs=self.disk(index),
            log_chunk_bytes=CHUNK,
            log_interval=0.1,
        )
        self.servers[index] = server
        return server

    def stop(self, index: int = 0) -> None:
        """Kill a server."""
        if (server := self.servers[index]) is not None:
            server.signal(signal.SIGKILL)
            server.wait_ended()

    def work(self) -> None:
        """Start the worker's daemon, after killing the one before it."""
        if self.daemons:
            self.daemons[-1].process.kill()
            self.daemons[-1].process.wait(10)
        far = SimpleNamespace(url=self.wire.url, token=self.token)
        self.daemons.append(Daemon(far, self.folder, {"concurrency": "4"}, {}))  # type: ignore[arg-type]

    def close(self) -> None:
        """End everything."""
        for daemon in self.daemons:
            end(daemon)
        self.wire.close()
        for index in range(len(self.servers)):
            self.stop(index)
        for daemon in self.daemons:
            assert "Traceback" not in daemon.said, daemon.said


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


class Task:
    """A task that runs on the worker and logs two halves."""

    def __init__(self, site: Site, case: str) -> None:
        self.site, self.case = site, case
        self.keep = site.folder / "".join(c if c.isalnum() else "-" for c in case)
        self.keep.mkdir()
        self.path = f"dag_id=d/{self.keep.name}/attempt=1.log"
        order = workload(WRITE, log_path=self.path, keep=str(self.keep), half=HALF, seed=case)
        self._seen = len(site.wire.appends)
        with new_session() as session:
            self.id = queue_job(session, datetime.now(UTC), workload=json.dumps(order), log_path=self.path)

    @property
    def expected(self) -> bytes:
        """The log as the task writes it."""
        bytes_of = random.Random(self.case).randbytes
        return bytes_of(HALF) + b"\0\r\n\xff" + bytes_of(HALF)

    def row(self) -> Job:
        """Return the job as it is stored."""
        with new_session() as session:
            job = session.get(Job, self.id)
            assert job is not None
            session.expunge(job)
            return job

    def stored(self) -> int:
        """Return how many bytes are in the store."""
        with new_session() as session:
            return sum(session.scalars(select(LogChunk.length).where(LogChunk.job_id == self.id)))

    def wait_half(self) -> None:
        """Return when the first half is stored."""
        wait_for(lambda: self.stored() == HALF, "the first half", timeout=PATIENCE, pause=0.02)

    def go_on(self) -> None:
        """Let the task write its second half and end."""
        (self.keep / "go").touch()

    def wait_written(self) -> None:
        """Return when the task has ended, and the worker knows."""
        report = self.site.daemons[-1].state_dir / "jobs" / f"{self.id}-1" / "report.json"
        wait_for(report.exists, "the task's end", timeout=PATIENCE, pause=0.02)

    def send(self, token: str, claim: int, first: int, data: bytes) -> int:
        """Send bytes as if from a worker; return the status of the answer."""
        headers = {
            "Authorization": f"Bearer {token}",
            "X-Claim": str(claim),
            "Content-Range": f"bytes {first}-{first + len(data) - 1}/*",
        }
        with requests.Session() as http:
            http.trust_env = False
            server = self.site.servers[0]
            assert server is not None
            return http.patch(f"{server.url}/v2/jobs/{self.id}/log", data=data, headers=headers, timeout=20).status_code

    def prove(self) -> None:
        """Wait for the end, and hold the three copies of the log against each other."""
        wait_for(lambda: self.row().log_complete, "the log to be complete", timeout=PATIENCE, pause=0.02)
        wait_for(lambda: not self.site.daemons[-1].folders(), "the worker to be done", timeout=PATIENCE, pause=0.02)
        job = self.row()
        assert job.state == JobState.SUCCESS, job.error
        # A server that heard of the end before the last bytes has written what there was; the other one has it all.
        files = sorted((path.read_bytes() for path in self.site.folder.glob(f"disk-*/{self.path}")), key=len)
        digest = hashlib.sha256(files[-1]).hexdigest()
        assert digest == job.log_sha256
        assert files[-1] == (self.keep / "log").read_bytes() == self.expected
        assert all(files[-1].startswith(part) for part in files)
        with new_session() as session:
            of_job = select(LogChunk.claim, LogChunk.offset, LogChunk.length).where(LogChunk.job_id == self.id)
            chunks = list(session.execute(of_job.order_by(LogChunk.offset)))
        ends = [chunk.offset + chunk.length for chunk in chunks]
        assert [chunk.offset for chunk in chunks] == [0, *ends[:-1]], "the chunks overlap, or leave a gap"
        assert ends[-1] == job.log_length == len(self.expected)
        assert {chunk.claim for chunk in chunks} == {1}
        requests_made = len(self.site.wire.appends) - self._seen
        self.site.rows.append(f"{self.case:<58} {ends[-1]:>7} {requests_made:>8} {digest[:16]} identical")


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
    server = site.serve(dies=dies)
    task.go_on()
    server.wait_ended()
    site.serve()
    task.prove()


def test_api_killed_between_the_log_file_and_its_row(site: Site, task: Task) -> None:
    task.wait_half()
    server = site.serve(dies="after a log's file was written, before that is stored")
    task.go_on()
    server.wait_ended()
    site.serve()
    task.prove()


def test_two_replicas_take_chunks_in_turn(site: Site, task: Task) -> None:
    turn = iter(range(10**9))
    site.serve(1)
    try:
        run(site, task, lambda wire, append: wire.forward(append, next(turn) % 2))
    finally:
        site.stop(1)


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
        for _ in range(99 if append.first in (0, CHUNK) else 0):
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


def test_everything_at_random(site: Site, task: Task) -> None:
    chance = random.Random(2)
    mishaps: list[Deal] = [lost_answer, Wire.cut, lambda wire, append: wire.forward(append, 1)]

    def anything(wire: Wire, append: Append) -> bytes | None:
        return chance.choice(mishaps)(wire, append)

    site.serve(1)
    try:
        run(site, task, every_other(anything))
    finally:
        site.stop(1)
