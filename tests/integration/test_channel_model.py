"""Servers, database and workers under lost, late, repeated and reordered messages: no job is lost, none runs twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from ledger import Key, Ledger, Row
from polling_site import PollingSite
from replicas import Replica, Replicas
from rows import queue_job
from served import new_token
from sites import Site, closed_within
from sqlalchemy import select

from edge_otel.models import jobs, upkeep, wishes
from edge_otel.models.session import new_session
from edge_otel.models.tables import Base, Job, Worker
from edge_otel.state import FINISHED, IN_MAINTENANCE, JobState

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

DRAINED_WITHIN = 40.0
SITE, CHANNEL_SITE, REPLICA = st.integers(0, 2), st.integers(0, 1), st.integers(0, 1)
# Which of those that there are: drawn without looking, or two runs of one example would differ.
ANY = st.integers(0, 11)

JOBS = st.lists(st.tuples(st.integers(1, 3), st.sampled_from("ab"), st.integers(0, 2)), min_size=2, max_size=4)
"""Slots, queue and priority of new jobs."""
ACT = st.sampled_from(["accept", "accept", "accept", "accept twice", "decline", "beat", "repeat"])
PATIENCE = st.sampled_from([0.0, 0.2])

MOST_ENDS = 2
"""Of servers, in one example: to start one takes longer than everything else."""
ENDS = st.sampled_from(["success", "failed"])

_numbers = count()


class ChannelModel(RuleBasedStateMachine):
    """Two servers on one database; two workers with channels and one that polls."""

    start_server: ClassVar[Callable[[int | None], Replica]]
    servers: ClassVar[list[Replica]]

    @initialize(new=JOBS)
    def begin(self, new: list[tuple[int, str, int]]) -> None:
        for number in range(len(self.servers)):
            self._ensure(number)
        with new_session() as session:
            for table in reversed(Base.metadata.sorted_tables):
                session.execute(table.delete())
        self.ledger = Ledger()
        self.ends = 0
        self.sites: list[Site] = []
        for kind, slots, queues in ((Site, 4, None), (Site, 2, ["a"]), (PollingSite, 2, None)):
            name = f"w{next(_numbers)}"
            self.sites.append(kind(name, new_token(name), slots, queues, self.ledger, self._row))
        for site in self.sites:
            site.connect(self.servers[0].url)
        self.queue(new)

    def _ensure(self, number: int) -> None:
        if not self.servers[number].alive:
            self.servers[number] = type(self).start_server(self.servers[number].port)

    def _row(self, job_id: str) -> Row:
        return self._rows([job_id])[job_id]

    def _rows(self, ids: Any) -> dict[str, Row]:
        with new_session() as session:
            query = select(Job.id, Job.claim, Job.state, Job.worker).where(Job.id.in_(list(ids)))
            return {job_id: Row(*row) for job_id, *row in session.execute(query)}

    def _job(self, pick: int) -> str | None:
        return list(self.ledger.jobs)[pick % len(self.ledger.jobs)] if self.ledger.jobs else None

    # What the executor does.

    @rule(new=JOBS)
    def queue(self, new: list[tuple[int, str, int]]) -> None:
        for slots, queue, priority in new:
            with new_session() as session:
                job_id = queue_job(session, datetime.now(UTC), slots=slots, queue=queue, priority=priority)
            self.ledger.note(f"queued {job_id} slots={slots} queue={queue}")
            self.ledger.queued(job_id, Row(0, JobState.QUEUED, None))

    @rule(pick=ANY, act=st.sampled_from(["queue again", "withdraw", "withdraw and queue again"]))
    def change_mind(self, pick: int, act: str) -> None:
        if job_id := self._job(pick):
            self.ledger.note(f"{act} {job_id}")
            if "withdraw" in act:
                self._withdraw(job_id)
            if "again" in act:
                self._queue_again(job_id)

    def _queue_again(self, job_id: str) -> None:
        with new_session() as session:
            job = jobs.lock(session, job_id)
            assert job is not None
            queue_job(session, datetime.now(UTC), id=job_id, slots=job.slots, queue=job.queue, priority=job.priority)
            self.ledger.queued(job_id, Row(job.claim, job.state, job.worker))

    def _withdraw(self, job_id: str) -> None:
        with new_session() as session:
            job = jobs.lock(session, job_id)
            assert job is not None
            if job.state not in FINISHED:
                upkeep.withdraw(session, job_id, datetime.now(UTC))
                session.refresh(job)
                self.ledger.withdraw(job_id, Row(job.claim, job.state, job.worker))

    @rule()
    def return_offers(self) -> None:
        self.ledger.note("offers are returned")
        with new_session() as session:
            upkeep.return_expired_offers(session, None, datetime.now(UTC) + timedelta(hours=1))

    @rule(at=SITE, wanted=st.booleans())
    def ask_for_maintenance(self, at: int, wanted: bool) -> None:
        name = self.sites[at].name
        self.ledger.note(f"maintenance of {name} wanted={wanted}")
        with new_session() as session:
            worker = session.get(Worker, name)
            if worker is not None:
                if wanted:
                    wishes.request_maintenance(session, name, "why", datetime.now(UTC), by="test")
                elif worker.state in IN_MAINTENANCE:
                    wishes.end_maintenance(session, name, datetime.now(UTC), by="test")

    # What happens to servers and connections.

    @rule(number=REPLICA, kill=st.booleans(), leave=st.booleans())
    def end_server(self, number: int, kill: bool, leave: bool) -> None:
        if self.ends >= MOST_ENDS:
            return
        self.ends += 1
        self.ledger.note(f"server {number} ends, killed={kill}, away={leave}")
        server = self.servers[number]
        (server.kill if kill else server.stop)()
        if not leave:
            self._ensure(number)

    @rule(number=REPLICA)
    def start_server_again(self, number: int) -> None:
        self._ensure(number)

    @rule(at=SITE, number=REPLICA, anew=st.sampled_from([False, False, False, True]), cut=st.booleans())
    def connect(self, at: int, number: int, anew: bool, cut: bool) -> None:
        self.sites[at].connect(self.servers[number].url, anew=anew, cut=cut)

    @rule(at=CHANNEL_SITE)
    def cut(self, at: int) -> None:
        self.sites[at].cut()

    # What workers do.

    @rule(at=CHANNEL_SITE, pick=ANY, act=ACT, patience=PATIENCE)
    def work(self, at: int, pick: int, act: str, patience: float) -> None:
        site = self.sites[at]
        site.hear(patience)
        if act == "beat":
            site.beat()
        elif act == "repeat":
            site.repeat()
        elif key := self._held(site, pick, "offered"):
            if act == "decline":
                site.decline(key)
            else:
                for _ in range(2 if act == "accept twice" else 1):
                    site.accept(key)
        elif key := self._held(site, pick, "accepting", "running"):
            site.accept(key)

    @rule(at=CHANNEL_SITE, pick=ANY, act=ACT, patience=PATIENCE)
    def work_on(self, at: int, pick: int, act: str, patience: float) -> None:
        # Rules are drawn alike, and this is what workers do most.
        self.work(at, pick, act, patience)

    @rule(at=SITE, pick=ANY, state=ENDS)
    def end(self, at: int, pick: int, state: str) -> None:
        site = self.sites[at]
        site.hear()
        if key := self._held(site, pick, "running"):
            site.end(key, state)

    def _held(self, site: Site, pick: int, *phases: str) -> Key | None:
        keys = [key for key, job in site.held.items() if job.phase in phases]
        return keys[pick % len(keys)] if keys else None

    @rule(at=CHANNEL_SITE, new=JOBS)
    def rest(self, at: int, new: list[tuple[int, str, int]]) -> None:
        site = self.sites[at]
        site.rest(not site.facts.maintenance)
        site.hear(0.2)
        self.queue(new)
        site.hear(0.2)

    @rule(at=CHANNEL_SITE, pick=ANY, offset=st.sampled_from([-1, 0, 0, 7]))
    def report_what_nobody_asked_for(self, at: int, pick: int, offset: int) -> None:
        """Report an end by a number that was never given, of another worker's job, or of one that has ended."""
        if job_id := self._job(pick):
            row = self._row(job_id)
            key = (job_id, row.claim + offset)
            held = any(key in site.held for site in self.sites if site is not self.sites[at])
            # By its worker, where there is one: nothing but the number, or the state, is wrong then.
            site = self.sites[at] if held else {s.name: s for s in self.sites}.get(row.worker or "", self.sites[at])
            if key[1] >= 0 and (offset or held or row.state in FINISHED):
                site.claim_end(key, "success" if row.state == JobState.FAILED else "failed")

    @rule(number=REPLICA, pick=ANY)
    def poll(self, number: int, pick: int) -> None:
        site = self.sites[2]
        assert isinstance(site, PollingSite)
        site.url = self.servers[number].url
        site.repeat()
        site.fetch()

    # What must hold.

    @invariant()
    def nothing_is_doubled(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.see(self._rows(self.ledger.jobs))

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            try:
                self._drain()
            finally:
                for site in self.sites:
                    site.cut()

    def _drain(self) -> None:
        """Let all come back and finish everything; nothing may be left over."""
        for number in range(len(self.servers)):
            self._ensure(number)
        for site in self.sites:
            self.ask_for_maintenance(self.sites.index(site), False)
            site.connect(self.servers[0].url)
            site.rest(False)
        self.return_offers()
        until = time.monotonic() + DRAINED_WITHIN
        while unfinished := self._unfinished():
            held = [(site.name, site.held) for site in self.sites]
            self.ledger.must(time.monotonic() < until, f"{unfinished} are never finished; workers hold {held}")
            for site in self.sites:
                if not site.connected:
                    site.connect(self.servers[1].url)
                site.work()
                site.beat()
        self.nothing_is_doubled()
        for site in self.sites:
            for far in site.older:
                self.ledger.must(closed_within(far, 10.0), f"an old channel of {site.name} stays open")

    def _unfinished(self) -> dict[str, Row]:
        rows = self._rows(self.ledger.jobs)
        self.ledger.see(rows)
        for job_id, row in rows.items():
            if row.state == JobState.RUNNING and (job_id, row.claim) in self.ledger.abandoned:
                # Its daemon is no more: Airflow gives its task up.
                with new_session() as session:
                    upkeep.settle(session, job_id, row.claim, JobState.LOST, "gone", datetime.now(UTC))
        return {job_id: row for job_id, row in rows.items() if row.state not in FINISHED}


@pytest.fixture
def model(launcher: Replicas, database: Any, database_url: str) -> Iterator[type[ChannelModel]]:
    def start(port: int | None) -> Replica:
        return launcher.start(database_url, port=port, slow=True)

    class Model(ChannelModel):
        start_server = staticmethod(start)
        servers: ClassVar[list[Replica]] = [start(None), start(None)]

    yield Model
    for server in Model.servers:
        server.kill()


CI = settings(
    max_examples=10,
    stateful_step_count=60,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_no_interleaving_of_messages_loses_or_doubles_a_job(model: type[ChannelModel]) -> None:
    run_state_machine_as_test(model, settings=CI)
