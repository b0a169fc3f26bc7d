"""The fault suite in its short form: each fault once, at sites that work at the same time."""

from __future__ import annotations

from tools import missing

from tests.faults import namespace
from tests.faults.__main__ import execute
from tests.faults.catalogue import FAULTS
from tests.faults.report import table

SITES = 4
SEED = "short"


def test_no_fault_loses_or_doubles_a_job_or_a_byte_or_leaves_a_worker_that_needs_a_hand() -> None:
    if reason := namespace.why_not():
        missing(reason)
    for fault in FAULTS:
        if reason := fault.why_not():
            missing(reason)
    outcomes = execute(FAULTS, runs=len(FAULTS), sites=SITES, seed=SEED)
    print(f"\n{table(outcomes)}")
    wrong = [f"{outcome.seed}: {'; '.join(outcome.notes)}" for outcome in outcomes if not outcome.right]
    assert not wrong, "\n".join(wrong)
    assert {outcome.fault for outcome in outcomes if not outcome.missed} == {fault.name for fault in FAULTS}
