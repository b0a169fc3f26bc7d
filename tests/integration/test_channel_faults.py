"""Servers as real processes that are killed at an exact step, connections that break at each message, a database that
restarts: every job runs once."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import cycle
from typing import Any

import pytest
from airflow import settings
from airflow_database import use
from channels import Far
from crowd import Crowd
from ledger import Key, Ledger, Row
from polling_site import PollingSite
from replica_process import DEATHS
from replicas import Replica, Replicas
from rows import queue_job
from served import new_token
from sites import Site
from sqlalchemy import select
from websockets.exceptions import ConnectionClosed

from demo.postgres import Postgres
from demo.wait import wait_for
from edge_otel.api import assigner, recorder
from edge_otel.api.hub import HANDSHAKES
from edge_otel.models.database import EdgeDBManager
from edge_otel.models.session import new_session
from edge_otel.models.tables import Job
from edge_otel.state import FINISHED, JobState

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

SOON = 5.0
"""Seconds that pass for a worker before it counts as having waited for somebody's care."""
PATIENCE = 30.0


class Fleet:
    """Workers that go on as daemons do, the jobs that are queued for them, and the servers that they try in turn."""

    def __init__(self, servers: Sequence[Replica], ledger: Ledger) -> None:
        self.ledger = ledger
        self.sites: list[Site] = []
        self.turn_to(*servers)

    def turn_to(self, *servers: Replica) -> None:
        """Let workers connect to these servers from now on."""
        self.servers = servers
        self._turns = cycle(servers)

    def add(self, name: str = "w", slots: int = 4, kind: type[Site] = Site, *, connect: bool = True) -> Site:
        """Return one more worker, connected unless told otherwise."""
        site = kind(name, new_token(name), slots, None, self.ledger, lambda job_id: self.rows()[job_id])
        self.sites.append(site)
        if connect:
            site.connect(next(self._turns).url)
        return site

    def queue(self, number: int = 1) -> list[str]:
        """Queue jobs and return their ids."""
        ids = []
        for _ in range(number):
            with new_session() as session:
                ids.append(queue_job(session, datetime.now(UTC)))
            self.ledger.queued(ids[-1], Row(0, JobState.QUEUED, None))
        return ids

    def rows(self) -> dict[str, Row]:
        """Return all jobs as they are stored."""
        with new_session() as session:
            query = select(Job.id, Job.claim, Job.state, Job.worker)
            return {job_id: Row(*row) for job_id, *row in session.execute(query)}

    def work_until(self, done: Callable[[], Any], what: str, timeout: float = PATIENCE) -> None:
        """Let everybody work, and connect again where a channel broke, until ``done``."""
        wait_for(lambda: done() or self._work(), what, timeout=timeout, pause=0.0)

    def _work(self) -> None:
        for site in self.sites:
            if not site.connected:
                site.connect(next(self._turns).url)
            site.work()

    def finish(self, timeout: float = PATIENCE) -> None:
        """Let everybody work until all jobs have ended well, and fail unless each was confirmed once."""

        def finished() -> bool:
            rows = self.rows()
            self.ledger.see(rows)
            return all(row.state in FINISHED for row in rows.values())

        self.work_until(finished, f"all jobs to end; {self.rows()}", timeout)
        assert {row.state for row in self.rows().values()} == {JobState.SUCCESS}
        assert self.ledger.confirmations == len(self.ledger.jobs)


@pytest.fixture
def start(launcher: Replicas, database: Any, database_url: str) -> Iterator[Callable[..., Replica]]:
    """Starts servers on the test's database."""
    started: list[Replica] = []

    def start_(**options: Any) -> Replica:
        started.append(launcher.start(database_url, **options))
        return started[-1]

    yield start_
    for server in started:
        server.kill()


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """Workers that are connected to nobody yet."""
    fleet = Fleet([], Ledger())
    yield fleet
    for site in fleet.sites:
        site.cut()


@pytest.mark.parametrize("successor", ["a new server", "another server"])
@pytest.mark.parametrize("step", [step for step, (where, *_) in DEATHS.items() if where in (assigner, recorder)])
def test_a_job_outlives_the_server_that_is_killed(start, fleet, step, successor):
    first = start(dies=step)
    fleet.turn_to(first)
    site = fleet.add()
    second = start() if successor == "another server" else None
    fleet.queue()
    wait_for(lambda: site.work() or not first.alive, "the server's death", timeout=PATIENCE, pause=0.0)
    fleet.turn_to(second or start(port=first.port))
    fleet.finish(SOON)


STEPS = ["upgrade", "hello", "offer on its way", "offer", "accept", "confirmed", "end"]


def life_of_a_job(site: Site, fleet: Fleet, server: Replica) -> Iterator[str]:
    """Let a worker run a job, and tell how far it has come: what it was sent or has sent is the last message."""
    silent = Far(server.url, site.token, site.name, site.session)
    yield "upgrade"
    silent.close()
    site.connect(server.url)
    yield "hello"
    wait_for(lambda: JobState.ASSIGNED in {row.state for row in fleet.rows().values()}, "a claim", timeout=SOON)
    yield "offer on its way"
    wait_for(lambda: site.hear(0.1) and site.held, "an offer", timeout=SOON, pause=0.0)
    (key,) = site.held
    yield "offer"
    site.accept(key)
    yield "accept"
    wait_for(lambda: site.hear(0.1) and site.held[key].phase == "running", "confirmed", timeout=SOON, pause=0.0)
    yield "confirmed"
    site.end(key, "success")
    yield "end"


@pytest.mark.parametrize("step", STEPS)
def test_a_job_outlives_a_connection_that_breaks(start, fleet, step):
    server = start()
    fleet.turn_to(server)
    site = fleet.add(connect=False)
    fleet.queue()
    life = life_of_a_job(site, fleet, server)
    assert any(reached == step for reached in life)
    site.cut()
    life.close()
    fleet.finish(SOON)


def test_a_server_that_stops_sends_its_workers_elsewhere_at_once(start, fleet):
    first, second = start(), start()
    fleet.turn_to(first)
    for number in range(3):
        fleet.add(f"w{number}", slots=1)
    fleet.queue(3)
    wait_for(
        lambda: [site.hear(0.1) for site in fleet.sites] and all(site.held for site in fleet.sites),
        "offers for all",
        timeout=SOON,
        pause=0.0,
    )
    working, accepting, offered = fleet.sites
    accept(working)
    accepting.accept(*accepting.held)
    first.signal(signal.SIGTERM)
    for site in (working, offered):
        assert 0 <= site.far.hear("bye").reconnect_after < 1
        with pytest.raises(ConnectionClosed) as closed:
            site.far.hear()
        assert closed.value.rcvd.code == 1012
    first.wait_ended()
    fleet.turn_to(second)
    fleet.finish(SOON)


def accept(site: Site) -> Key:
    """Accept the one job that a worker was offered, and return it when it is confirmed."""
    (key,) = site.held
    site.accept(key)
    wait_for(lambda: site.hear(0.1) and site.held[key].phase == "running", "confirmed", timeout=SOON, pause=0.0)
    return key


def test_of_two_servers_the_other_takes_over_the_workers_of_a_killed_one(start, fleet):
    first, second = start(), start()
    fleet.turn_to(first, second)
    for number in range(4):
        fleet.add(f"w{number}")
    fleet.queue(60)
    fleet.work_until(lambda: fleet.ledger.confirmations >= 20, "jobs to flow")
    assert {site.name for site in fleet.sites} == fleet.ledger.workers()
    first.kill()
    fleet.finish(SOON)
    fleet.work_until(lambda: all(site.welcomed for site in fleet.sites), "all to be back", SOON)


def test_polling_workers_and_channels_share_the_jobs(start, fleet):
    fleet.turn_to(start())
    fleet.add("polling", kind=PollingSite)
    fleet.add("channel")
    fleet.queue(30)
    fleet.finish()
    assert fleet.ledger.workers() == {"polling", "channel"}


@pytest.fixture
def own_postgres(database_url: str) -> Iterator[Postgres]:
    """A server that no other test uses; Airflow's settings lead to a database of it."""
    server = Postgres()
    use(server.new_database())
    with new_session() as session:
        EdgeDBManager(session).initdb()
    yield server
    use(database_url)
    server.stop()


def test_jobs_and_channels_outlive_a_restart_of_the_database(own_postgres, launcher, fleet):
    server = launcher.start(settings.SQL_ALCHEMY_CONN)
    fleet.turn_to(server)
    ending, accepting = fleet.add("w0", slots=1), fleet.add("w1", slots=1)
    channels = [site.far for site in fleet.sites]
    fleet.queue(4)
    wait_for(lambda: ending.hear(0.1) and ending.held, "an offer", timeout=SOON, pause=0.0)
    wait_for(lambda: accepting.hear(0.1) and accepting.held, "an offer", timeout=SOON, pause=0.0)
    key = accept(ending)
    own_postgres.process.stop()
    accepting.accept(*accepting.held)
    ending.end(key, "success")
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        # Nobody waits for the database: heartbeats are answered.
        ending.beat()
        assert ending.hear(2.0)
        accepting.work()
    assert ending.held[key].phase == "success", "acknowledged with no database"
    own_postgres.start()
    try:
        fleet.finish()
        assert [site.far for site in fleet.sites] == channels
    finally:
        server.kill()


def test_a_fleet_comes_back_after_a_restart_and_only_some_at_a_time(start, database):
    server = start()
    with Crowd(500, server.url, new_token("crowd-*")) as crowd:
        wait_for(crowd.complete, "all to be connected", timeout=60)
        server.kill()
        wait_for(lambda: not crowd.connected, "all to be gone", timeout=SOON)
        server = start(port=server.port)
        wait_for(crowd.complete, "all to be back", timeout=60)
    assert 0 < server.most_handshakes() <= HANDSHAKES
