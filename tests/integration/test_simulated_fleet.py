"""The benchmark's simulated workers against the served API: what they count is what happened."""

from __future__ import annotations

from datetime import UTC, datetime

from rows import queue_job
from served import new_token
from sqlalchemy import select

from edge_otel.models.tables import Job
from tests.bench.fleet import Fleet
from tests.bench.simulated import Habits


def test_a_simulated_fleet_runs_every_job_once_and_keeps_account(start_api, database):
    api = start_api(channels=True)
    with Fleet(api.url, new_token("bench-*"), Habits(slots=2, job_seconds=0.05)) as fleet:
        fleet.grow(20, per_second=100)
        with database() as session:
            jobs = [queue_job(session, datetime.now(UTC), log_path=None) for _ in range(60)]
        fleet.until(lambda: not fleet.tally.lost(jobs), "every job to end", 60)
        tally = fleet.tally
    assert (tally.doubled(), tally.broken, tally.stale, tally.errors) == (0, 0, 0, [])
    assert len(tally.confirmed) == len(tally.offered) == 60
    with database() as session:
        stored = {row.id: row for row in session.execute(select(Job.id, Job.state, Job.worker, Job.claim))}
    assert {row.state for row in stored.values()} == {"success"}
    assert tally.holders == {job_id: {(row.worker, row.claim)} for job_id, row in stored.items()}
