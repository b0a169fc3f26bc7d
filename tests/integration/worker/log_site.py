"""A site whose task logs go through the wire, and a task there, whose log is proven."""

from __future__ import annotations

import hashlib
import json
import random
import signal
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import requests
from conftest import Daemon, end, workload
from replicas import Replica, Replicas
from rows import queue_job
from served import new_token
from sqlalchemy import select
from wire import Wire

from demo.process import free_port
from demo.wait import wait_for
from edge_otel.models.session import new_session
from edge_otel.models.tables import Job, LogChunk
from edge_otel.state import JobState

CHUNK = 16 * 1024
HALF = 3 * CHUNK + 17
PATIENCE = 30.0
"""Seconds; a case takes a few."""
WRITE = """
import random
bytes_of = random.Random(workload["seed"]).randbytes

def half():
    period, size = workload["period"], workload["half"]
    text = bytes_of(period).replace(b"\\n", workload["line_end"].encode())
    return (text * (size // period + 1))[:size]

keep = Path(workload["keep"])
log(half())
os.link(Path(os.environ["AIRFLOW__LOGGING__BASE_LOG_FOLDER"]) / workload["log_path"], keep / "log")
wait_for_file(keep / "go")
log(b"\\0\\r\\xff" + half())
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

    def serve(self, index: int = 0, dies: str | None = None, chunk: int = CHUNK) -> Replica:
        """Start a server, in place of the one before it; it asks for chunks of this many bytes."""
        self.stop(index)
        server = self._launcher.start(
            self._database_url,
            port=self._ports[index],
            dies=dies,
            logs=self.disk(index),
            log_chunk_bytes=chunk,
            log_interval=0.1,
        )
        self.servers[index] = server
        return server

    def serve_both(self) -> None:
        """Start the second server, unless it runs."""
        if self.servers[1] is None or not self.servers[1].alive:
            self.serve(1)

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


class Task:
    """A task that runs on the worker and logs two halves."""

    def __init__(
        self, site: Site, case: str, half: int = HALF, line_end: str = "\n", period: int | None = None
    ) -> None:
        """``half``: bytes of each half, repeated after ``period`` of them; ``line_end``: what stands for every line
        feed."""
        self.site, self.case, self.half, self.line_end, self.period = site, case, half, line_end, period or half
        self.keep = site.folder / "".join(c if c.isalnum() else "-" for c in case)
        self.keep.mkdir()
        self.path = f"dag_id=d/{self.keep.name}/attempt=1.log"
        about = {"half": half, "period": self.period, "seed": case, "line_end": line_end}
        order = workload(WRITE, log_path=self.path, keep=str(self.keep), **about)
        self._seen = len(site.wire.appends)
        with new_session() as session:
            self.id = queue_job(session, datetime.now(UTC), workload=json.dumps(order), log_path=self.path)

    @property
    def expected(self) -> bytes:
        """The log as the task writes it."""
        bytes_of = random.Random(self.case).randbytes
        parts = [bytes_of(self.period).replace(b"\n", self.line_end.encode()) for _ in range(2)]
        return b"\0\r\xff".join((part * (self.half // self.period + 1))[: self.half] for part in parts)

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
        wait_for(lambda: self.stored() == self.half, "the first half", timeout=PATIENCE, pause=0.02)

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
        length, said = job.log_ends["1"]
        assert digest == said
        assert files[-1] == (self.keep / "log").read_bytes() == self.expected
        assert all(files[-1].startswith(part) for part in files)
        with new_session() as session:
            of_job = select(LogChunk.claim, LogChunk.offset, LogChunk.length).where(LogChunk.job_id == self.id)
            chunks = list(session.execute(of_job.order_by(LogChunk.offset)))
        ends = [chunk.offset + chunk.length for chunk in chunks]
        assert [chunk.offset for chunk in chunks] == [0, *ends[:-1]], "the chunks overlap, or leave a gap"
        assert ends[-1] == length == len(self.expected)
        assert {chunk.claim for chunk in chunks} == {1}
        requests_made = len(self.site.wire.appends) - self._seen
        self.site.rows.append(f"{self.case:<58} {ends[-1]:>7} {requests_made:>8} {digest[:16]} identical")
