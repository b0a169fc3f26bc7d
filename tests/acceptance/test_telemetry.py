"""What the person on call sees of a site that was told nothing but an address and a token."""

from __future__ import annotations

from contextlib import suppress

import pytest

from acceptance import hop
from acceptance.hop import Row, Try
from acceptance.rig import LONG, Rig
from demo.spans import of_run
from demo.wait import NotSeen
from edge_otel.telemetry import names

TRIES = (
    Try("fine"),
    Try("each", index=0),
    Try("each", index=1),
    Try("failing", "failed", "task_failed"),
    Try("second_try", "failed", "task_failed"),
    Try("second_try", number=2),
    Try("killed", "killed", "signal_9", reaches_airflow=False),
    Try("unsupervised", "killed", "signal_9", reaches_airflow=False),
)


@pytest.fixture(scope="module")
def run(rig: Rig) -> str:
    """A finished run of ``watched`` on the worker ``seen``."""
    with rig.running("seen"):
        run_id = rig.trigger("watched")
        assert rig.finish("watched", run_id, LONG) == "failed", "the tasks that fail on purpose fail the run"
        return run_id


def test_every_span_of_every_try_is_received_once_below_its_parent(rig: Rig, run: str) -> None:
    carriers = {
        (job["task_id"], job["map_index"]): job["carrier"]["traceparent"].split("-")[2] for job in rig.jobs(run)
    }

    def rows() -> list[Row]:
        return hop.table(of_run(rig.spans.spans(), run), TRIES, carriers, "default")

    with suppress(NotSeen):
        rig.wait(lambda: all(row.right for row in rows()), "the spans", 30)
    print("\n".join(hop.lines(rows())))
    assert [row for row in rows() if not row.right] == []
    assert len({span.trace_id for span in of_run(rig.spans.spans(), run)}) == 1


def test_the_daemons_log_names_the_trace_of_the_task_that_a_line_is_about(rig: Rig, run: str) -> None:
    traces = {span.trace_id for span in of_run(rig.spans.spans(), run)}

    def about() -> list[str]:
        said = (r for r in rig.spans.records() if r.resource[names.SERVICE_NAME] == "edge-worker")
        return [r.body for r in said if r.trace_id in traces]

    rig.wait(lambda: any("signal 9" in line for line in about()), "the daemon's word on the killed task", 30)


def test_identity_is_the_servers_word_and_host_metrics_have_it(rig: Rig, run: str) -> None:
    def readings() -> set[str]:
        mine = (p for p in rig.spans.points() if p.resource.get(names.WORKER_NAME) == "seen")
        return {p.metric for p in mine}

    rig.wait(lambda: {names.CPU_TIME.name, names.MEMORY_USAGE.name, names.JOBS_CPU.name} <= readings(), "metrics", 30)


def test_a_scrape_tells_of_the_worker_and_its_jobs(rig: Rig, run: str) -> None:
    scraped = rig.cluster.scrape()
    assert any(line.startswith("edge_worker_state{") and 'worker="seen"' in line for line in scraped)
    assert any(line.startswith("edge_jobs_finished_total{") and 'outcome="failed"' in line for line in scraped)
