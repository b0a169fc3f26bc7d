"""Random runs of the log store against its model: no byte is lost or doubled."""

from __future__ import annotations

import hashlib
import random
import secrets
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from log_model import Gap, Run, tiles
from rows import NOW, claim, queue_job, register
from sqlalchemy import StaticPool, create_engine, select
from sqlalchemy.orm import Session

from edge_otel.api import v2_logs
from edge_otel.api.auth import Principal
from edge_otel.api.log_files import Writer
from edge_otel.errors import Forbidden, JobNotFound, LogGap, StaleClaim
from edge_otel.models import jobs, logs, upkeep
from edge_otel.models.packed import Packed
from edge_otel.models.tables import Base, Job, LogChunk
from edge_otel.settings import LogFolder
from edge_otel.state import JobState

RUNS, RUNS_OF_ALL = 10_000, 150
WORKERS = ("even", "odd")
"""Who runs the job under an even or odd claim."""
SEED = secrets.randbits(32)


def wrong_chunks(session: Session, job_id: str, expected: bytes) -> list[str]:
    """Return what is wrong with the chunks of a log."""
    columns = (LogChunk.claim, LogChunk.offset, LogChunk.length, LogChunk.data)
    query = select(*columns).where(LogChunk.job_id == job_id).order_by(LogChunk.claim, LogChunk.offset)
    found = list(session.execute(query))
    wrong = list(tiles([tuple(row[:3]) for row in found]))
    return (
        wrong if b"".join(zlib.decompress(row.data, wbits=47) for row in found) == expected else [*wrong, "other bytes"]
    )


class Queries:
    """The queries on logs alone, in one transaction."""

    def __init__(self, session: Session, job: Job) -> None:
        self._session, self._job = session, job

    def append(self, claim: int, first: int, data: bytes) -> int:
        try:
            return logs.append(self._session, self._job, claim, first, data).cursor
        except LogGap as gap:
            raise Gap(gap.facts["cursor"]) from None

    def cursor(self, claim: int) -> int:
        return logs.cursor(self._session, self._job.id, claim)

    def begin(self, claim: int) -> None:
        self._job.accepted_at = NOW
        jobs.keep_holder(self._job)
        self._job.state, self._job.claim = JobState.RUNNING, claim

    def end(self, claim: int, data: bytes) -> None:
        jobs.record_report(self._job, JobState.SUCCESS, claim, NOW, log_length=len(data))

    def finalise(self) -> bool:
        return logs.all_here(self._session, self._job)

    def disturb(self, chance: random.Random, claim: int, first: int, data: bytes) -> None:
        """Do nothing: who may append is not decided here."""


class _KilledError(Exception):
    """The server ends here, before its commit."""


class Server:
    """All that an API server does to a log, each in its own transaction."""

    def __init__(self, database, writer: Writer) -> None:
        self._database, self._writer = database, writer
        with database() as session:
            self._workers = {name: register(session, name, NOW) for name in WORKERS}
            self.id = queue_job(session, NOW)
        self._run(1)

    def _run(self, number: int) -> None:
        with self._database() as session:
            job = claim(session, self._workers[WORKERS[number % 2]], NOW)
            assert (job.id, job.claim) == (self.id, number)
            jobs.record_report(job, JobState.RUNNING, number, NOW)

    def append(self, claim: int, first: int, data: bytes, caller: Principal | None = None) -> int:
        caller = caller or Principal("t", WORKERS[claim % 2])
        try:
            answer = v2_logs._append(self.id, claim, first, Packed.of(data), caller, self._writer)
        except LogGap as gap:
            raise Gap(gap.facts["cursor"]) from None
        return int(answer.headers["Range"].rpartition("-")[2] or -1) + 1

    def cursor(self, claim: int) -> int:
        with self._database() as session:
            return logs.cursor(session, self.id, claim)

    def begin(self, claim: int) -> None:
        with self._database() as session:
            queue_job(session, NOW, id=self.id)
        self._run(claim)

    def end(self, claim: int, data: bytes) -> None:
        said = {"log_length": len(data), "log_sha256": hashlib.sha256(data).hexdigest()}
        with self._database() as session:
            jobs.record_report(jobs.lock(session, self.id), JobState.SUCCESS, claim, NOW, **said)

    def finalise(self) -> bool:
        self._writer.finalise(self.id)
        with self._database() as session:
            return session.get(Job, self.id).log_complete

    def disturb(self, chance: random.Random, claim: int, first: int, data: bytes) -> None:
        """Append under a claim that never was, as another worker, or as a server that is killed; or purge."""
        match chance.randrange(4):
            case 0:
                with pytest.raises(StaleClaim):
                    self.append(chance.choice((0, 9)), 0, b"of another claim")
            case 1:
                with pytest.raises(Forbidden):
                    self.append(claim, first, b"of another worker", Principal("t", WORKERS[(claim + 1) % 2]))
            case 2:
                with pytest.raises(_KilledError), self._database() as session:
                    logs.append(session, jobs.lock(session, self.id), claim, first, b"not committed")
                    raise _KilledError
            case 3:
                with self._database() as session:
                    logs.purge(session, logs.Homes(), datetime.now(UTC))


@pytest.fixture
def memory() -> Iterator[Session]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield session
    engine.dispose()


def test_no_byte_is_lost_or_doubled_in_10000_runs_of_the_queries(memory):
    job_id = queue_job(memory, NOW)
    columns = {c.key: getattr(memory.get(Job, job_id), c.key) for c in Job.__table__.columns}
    sent = stored = 0
    for number in range(RUNS):
        seed = SEED + number
        # Never in the table, which would be half of the work: what is under test reads its object.
        job = Job(
            **columns | {"id": f"{number:036d}", "claim": 1, "worker": "w", "accepted_at": NOW, "state": "running"}
        )
        run = Run(Queries(memory, job), seed)
        expected = run.play(steps=run.chance.randrange(7))
        assert wrong_chunks(memory, job.id, expected) == [], f"seed {seed}"
        sent, stored = sent + run.sent, stored + len(expected)
        memory.expunge_all()
    print(f"\n{RUNS} runs from seed {SEED}: {sent} bytes sent, {stored} stored, 0 lost, 0 doubled")


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_no_byte_is_lost_or_doubled_between_a_server_and_its_disk(database, tmp_path: Path):
    folder = LogFolder(tmp_path / "logs", 0o755, 0o644)
    writer = Writer(folder)
    for seed in range(SEED, SEED + RUNS_OF_ALL):
        server = Server(database, writer)
        run = Run(server, seed)
        expected = run.play(steps=run.chance.randrange(12), disturbed=0.3)
        with database() as session:
            file = folder.base / session.get(Job, server.id).log_path
            assert file.read_bytes() == expected, f"seed {seed}"
            assert b"".join(logs.read(session, server.id)) == expected, f"seed {seed}"
            assert wrong_chunks(session, server.id, expected) == [], f"seed {seed}"
            upkeep.delete_finished(session, [server.id], datetime.now(UTC))
        with pytest.raises(JobNotFound):
            server.append(1, 0, b"too late")
        with database() as session:
            assert b"".join(logs.read(session, server.id)) == expected, "the log outlives its job"
    writer.close()
    print(f"\n{RUNS_OF_ALL} runs from seed {SEED}")
