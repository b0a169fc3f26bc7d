"""A whole DAG run at the edge: states, places, logs and traces."""

from __future__ import annotations

from contextlib import suppress

import pytest

from acceptance.rig import Rig
from demo.spans import broken_chains, of_run
from demo.wait import NotSeen

EXPECTED = {
    "numbers": "success",
    "double[0]": "success",
    "double[1]": "success",
    "double[2]": "success",
    "total": "success",
    "second_try": "success",
    "talkative": "success",
    "failing": "failed",
    "unreached": "upstream_failed",
}
STARTS = {
    ("numbers", -1, 1),
    ("double", 0, 1),
    ("double", 1, 1),
    ("double", 2, 1),
    ("total", -1, 1),
    ("second_try", -1, 1),
    ("second_try", -1, 2),
    ("talkative", -1, 1),
    ("failing", -1, 1),
}


def assert_everything_ran(rig: Rig, run_id: str, worker: str) -> None:
    """Fail unless a run of ``everything`` ended as it must, each try once, by this worker's account of it."""
    assert rig.api.states("everything", run_id) == EXPECTED
    assert dict(rig.started(run_id)) == dict.fromkeys(STARTS, 1)
    assert {job["worker"] for job in rig.jobs(run_id)} == {worker}

    def lines() -> list[str]:
        return [line for line in rig.api.log("everything", run_id, "talkative") if line.startswith("line ")]

    # The last bytes come after the task's own end, and those of an edge3 worker at its next look.
    rig.wait(lines, "the log of a task that ended", 30)
    assert lines() == [f"line {number}" for number in range(300)]


@pytest.fixture(scope="module")
def run(rig: Rig) -> str:
    """A finished run of ``everything`` on the worker ``alpha``."""
    with rig.running("alpha"):
        run_id = rig.trigger("everything")
        assert rig.finish("everything", run_id) == "failed", "the task that fails on purpose fails the run"
        return run_id


def test_a_task_that_is_deferred_resumes_and_has_one_log(rig: Rig) -> None:
    rig.cluster.start_airflow("triggerer", "triggerer")
    try:
        with rig.running("patient"):
            run_id = rig.trigger("deferring")
            assert rig.finish("deferring", run_id) == "success"
    finally:
        rig.cluster.end("triggerer")
    assert [entry["event"] for entry in rig.ledger(run_id)] == ["start", "end"]
    (job,) = rig.jobs(run_id)
    assert (job["state"], job["claim"]) == ("success", 2)
    lines = rig.api.log("deferring", run_id, "two_parts")
    parts = [line for line in lines if line in ("the first part", "the second part")]
    assert parts == ["the first part", "the second part"]


def test_every_task_ends_in_its_state_after_one_start_per_try(rig: Rig, run: str) -> None:
    assert_everything_ran(rig, run, "alpha")
    hosts = {task["hostname"] for task in rig.api.tasks("everything", run) if task["state"] != "upstream_failed"}
    assert hosts == {"alpha"}


def test_the_failed_try_keeps_its_log_beside_that_of_the_next(rig: Rig, run: str) -> None:
    first = rig.api.log("everything", run, "second_try", try_number=1)
    second = rig.api.log("everything", run, "second_try", try_number=2)
    assert any("This try fails on purpose." in line for line in first)
    assert not any("This try fails on purpose." in line for line in second)


def test_a_stopped_worker_is_offline(rig: Rig, run: str) -> None:
    rig.wait_worker("alpha", "offline")


def test_each_try_is_one_chain_in_the_trace_of_the_run(rig: Rig, run: str) -> None:
    tries = len(STARTS)
    with suppress(NotSeen):
        rig.wait(lambda: not broken_chains(rig.spans.spans(), run, tries), "the spans", 20)
    assert broken_chains(rig.spans.spans(), run, tries) == []
    process = [span for span in of_run(rig.spans.spans(), run) if span.name == "process default"]
    assert len(process) == tries
    assert {span.service for span in process} == {"edge-worker"}
    assert sum(span.failed for span in process) == 2, "the two failing tries"


def test_a_missed_deadline_is_called_back_on_the_worker(rig: Rig) -> None:
    with rig.running("caller"):
        run_id = rig.trigger("late")
        file = rig.ledger_folder / "deadlines.jsonl"
        rig.wait(file.exists, "the callback to run")
        rig.release(run_id)
        assert rig.finish("late", run_id) == "success"
        query = "SELECT worker, state FROM edge_otel_job WHERE kind = 'callback'"
        rig.wait(lambda: rig.rows(query) == [{"worker": "caller", "state": "success"}], "the callback's job to end")
        assert len(file.read_text().splitlines()) == 1


def test_a_connection_is_tested_on_the_worker(rig: Rig) -> None:
    body = {"connection_id": "files", "conn_type": "fs", "extra": '{"path": "/"}'}
    with rig.running("tester"):
        token = rig.api.call("POST", "connections/enqueue-test", json=body)["token"]

        def ended() -> dict[str, str] | None:
            headers = {"Airflow-Connection-Test-Token": token}
            answer: dict[str, str] = rig.api.call("GET", "connections/enqueue-test", headers=headers)
            return answer if answer["state"] in ("success", "failed") else None

        answer = rig.wait(ended, "the connection test to end")
        assert answer["state"] == "success", answer["result_message"]
        query = "SELECT worker, state FROM edge_otel_job WHERE kind = 'connection_test'"
        rig.wait(lambda: rig.rows(query) == [{"worker": "tester", "state": "success"}], "the test's job to end")


def test_logs_are_readable_while_the_task_runs(rig: Rig) -> None:
    with rig.running("live"):
        run_id = rig.trigger("gated", count=1)
        rig.wait_started(run_id, 1)

        def line(text: str) -> bool:
            return text in rig.api.log("gated", run_id, "hold", map_index=0)

        rig.wait(lambda: line("task 0 works"), "the line of a task that runs", 30)
        assert rig.api.states("gated", run_id)["hold[0]"] == "running"
        assert not line("task 0 was released")
        rig.release(run_id)
        assert rig.finish("gated", run_id) == "success"
        rig.wait(lambda: line("task 0 was released"), "the last line", 30)
        lines = rig.api.log("gated", run_id, "hold", map_index=0)
        assert lines.count("task 0 works") == lines.count("task 0 was released") == 1
