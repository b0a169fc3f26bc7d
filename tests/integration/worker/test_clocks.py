"""Clocks that differ, or are set: nothing but the reported skew follows from it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from conftest import Start, finished, workload
from fake_server import FakeCentral


@pytest.mark.parametrize("minutes", [10, -10])
def test_ten_minutes_between_the_clocks_during_a_job_and_between_jobs_change_nothing(
    central: FakeCentral, start: Start, tmp_path: Path, minutes: int
) -> None:
    go = tmp_path / "go"
    daemon = start(disconnect_policy="stop-after 5s")
    job = central.offer(workload(f"log(b'begun\\n'); wait_for_file({str(go)!r}); log(b'done\\n')"))
    central.wait_for(lambda: job.log)
    central.ahead = timedelta(minutes=minutes)
    central.wait_for(lambda: abs(central.last()["sysinfo"].get("clock_skew", 0) + 60 * minutes) < 5)
    seen = len(central.reports)
    central.wait_for(lambda: len(central.reports) > seen + 10)
    go.touch()
    central.wait_for(finished(job))
    assert (job.state, bytes(job.log)) == ("success", b"begun\ndone\n")
    central.ahead = -central.ahead
    later = central.offer(workload("pass"))
    central.wait_for(finished(later))
    assert later.state == "success"
    central.wait_for(lambda: daemon.folders() == [])
