"""A job's claims: what becomes of reports, for every case and under random interleavings."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_otel.state import FINISHED, JobState, Verdict, judge

J = JobState
REPORTABLE = (J.QUEUED, J.RUNNING, J.SUCCESS, J.FAILED)


@pytest.mark.parametrize(("stored", "reported"), list(product(J, REPORTABLE)))
def test_another_claim_is_stale_whatever_it_says(stored, reported):
    assert judge(stored, 2, reported, 1) is Verdict.STALE
    assert judge(stored, 2, reported, 3) is Verdict.STALE


@pytest.mark.parametrize(("stored", "reported"), list(product(sorted(FINISHED), REPORTABLE)))
def test_a_finished_job_stays_finished(stored, reported):
    assert judge(stored, 1, reported, 1) is not Verdict.STORED


@pytest.mark.parametrize(
    ("stored", "reported", "verdict"),
    [
        (J.ASSIGNED, J.RUNNING, Verdict.STORED),
        (J.ASSIGNED, J.QUEUED, Verdict.STORED),
        (J.ASSIGNED, J.FAILED, Verdict.STORED),
        (J.RUNNING, J.RUNNING, Verdict.REPEATED),
        (J.RUNNING, J.SUCCESS, Verdict.STORED),
        (J.RUNNING, J.FAILED, Verdict.STORED),
        (J.RUNNING, J.QUEUED, Verdict.STALE),
        (J.SUCCESS, J.SUCCESS, Verdict.REPEATED),
        (J.SUCCESS, J.RUNNING, Verdict.STALE),
        (J.LOST, J.SUCCESS, Verdict.REPEATED),
        (J.LOST, J.RUNNING, Verdict.STALE),
        (J.QUEUED, J.RUNNING, Verdict.STALE),
        (J.QUEUED, J.SUCCESS, Verdict.STALE),
    ],
)
def test_a_report_with_the_current_claim_is_judged_by_where_the_job_stands(stored, reported, verdict):
    assert judge(stored, 1, reported, 1) is verdict


class OneJob(RuleBasedStateMachine):
    """One job, its row as the server has it, and three workers whose messages come late, twice or never."""

    def __init__(self) -> None:
        super().__init__()
        self.state, self.claim, self.holder = J.QUEUED, 0, None
        self.offers: dict[int, str] = {}
        self.confirmed: dict[int, list[str]] = {}
        self.ended_as: JobState | None = None
        self.claims_seen = [0]

    @precondition(lambda self: self.state is J.QUEUED)
    @rule(worker=st.sampled_from("abc"))
    def is_offered(self, worker):
        self.state, self.claim, self.holder = J.ASSIGNED, self.claim + 1, worker
        self.offers[self.claim] = worker
        self.claims_seen.append(self.claim)

    @precondition(lambda self: self.state is J.ASSIGNED)
    @rule()
    def offer_runs_out(self):
        self.state = J.QUEUED

    @precondition(lambda self: self.state is J.RUNNING)
    @rule()
    def is_settled_for_a_silent_worker(self):
        self.state = self.ended_as = J.LOST

    @precondition(lambda self: self.state in FINISHED)
    @rule()
    def is_queued_again_after_deferral(self):
        self.state, self.ended_as = J.QUEUED, None

    @precondition(lambda self: self.offers)
    @rule(data=st.data(), reported=st.sampled_from(REPORTABLE))
    def a_report_arrives(self, data, reported):
        claim = data.draw(st.sampled_from(sorted(self.offers)))
        before = self.state
        verdict = judge(self.state, self.claim, reported, claim)
        if claim != self.claim:
            assert verdict is Verdict.STALE
        if verdict is Verdict.STORED:
            assert before in (JobState.ASSIGNED, JobState.RUNNING)
            self.state = reported
            if reported is J.RUNNING:
                self.confirmed.setdefault(claim, []).append(self.offers[claim])
            if reported in FINISHED:
                self.ended_as = reported

    @invariant()
    def a_claim_is_confirmed_once_and_to_the_worker_it_was_offered_to(self):
        for claim, workers in self.confirmed.items():
            assert workers == [self.offers[claim]]

    @invariant()
    def only_the_newest_claim_runs(self):
        if self.state is J.RUNNING:
            assert self.claim in self.confirmed
            assert self.claim == max(self.confirmed)

    @invariant()
    def claims_only_rise(self):
        assert self.claims_seen == sorted(set(self.claims_seen))

    @invariant()
    def an_end_is_final(self):
        assert self.ended_as is None or self.state is self.ended_as


TestOneJob = OneJob.TestCase
TestOneJob.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
