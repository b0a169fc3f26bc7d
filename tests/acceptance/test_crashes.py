"""Processes that are killed while tasks run: nothing is lost and nothing runs twice."""

from __future__ import annotations

import time
from itertools import pairwise

import psutil

from acceptance.rig import LONG, Rig
from demo.wait import wait_for
from edge_otel.telemetry import names


def assert_each_once(rig: Rig, run_id: str, count: int) -> None:
    """Fail unless each of the gated tasks started once and ended once, at its first try."""
    assert dict(rig.started(run_id)) == {("hold", index, 1): 1 for index in range(count)}
    ends = sorted(entry["index"] for entry in rig.ledger(run_id) if entry["event"] == "end")
    assert ends == list(range(count))


def test_a_killed_scheduler_is_replaced_and_adopts_the_running_jobs(rig: Rig) -> None:
    with rig.running("beta", concurrency=2):
        run_id = rig.trigger("gated", count=4)
        rig.wait_started(run_id, 2)
        rig.cluster.forget("scheduler").kill()
        rig.release(run_id, 0)
        rig.wait(lambda: any(e["event"] == "end" for e in rig.ledger(run_id)), "a task to end with no scheduler")
        rig.cluster.start_airflow("scheduler", "scheduler")
        rig.release(run_id)
        assert rig.finish("gated", run_id) == "success"
        assert_each_once(rig, run_id, 4)


def test_a_killed_worker_readopts_its_jobs_when_it_comes_back(rig: Rig) -> None:
    with rig.running("gamma") as worker:
        run_id = rig.trigger("gated", count=3)
        rig.wait_started(run_id, 3)
        rig.cluster.forget("gamma").kill_alone()
        rig.release(run_id, 0)
        rig.wait(lambda: any(e["event"] == "end" for e in rig.ledger(run_id)), "a task to end with no daemon")
        worker.start()
        rig.wait_worker("gamma", "running")
        rig.release(run_id)
        assert rig.finish("gated", run_id) == "success"
        assert_each_once(rig, run_id, 3)
        for index in range(3):
            rig.wait(
                lambda i=index: f"task {i} was released" in rig.api.log("gated", run_id, "hold", map_index=i), "log"
            )
            lines = rig.api.log("gated", run_id, "hold", map_index=index)
            assert lines.count(f"task {index} works") == lines.count(f"task {index} was released") == 1


def test_tasks_of_a_dead_machine_are_retried_elsewhere_without_a_second_effect(rig: Rig) -> None:
    quick = {
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    }
    rig.cluster.end("scheduler")
    rig.cluster.start_airflow("scheduler", "scheduler", **quick)
    try:
        with rig.running("doomed") as worker:
            run_id = rig.trigger("gated", count=1)
            rig.wait_started(run_id, 1)
            rig.wait(lambda: "task 0 works" in rig.api.log("gated", run_id, "hold", map_index=0), "its log")
            rig.kill_site(worker)
        rig.wait_worker("doomed", "unknown")
        with rig.running("heir"):
            rig.wait_started(run_id, 2)
            rig.release(run_id)
            assert rig.finish("gated", run_id) == "success"
        assert dict(rig.started(run_id)) == {("hold", 0, 1): 1, ("hold", 0, 2): 1}
        assert [entry["try"] for entry in rig.ledger(run_id) if entry["event"] == "end"] == [2]
        (task,) = [task for task in rig.api.tasks("gated", run_id) if task["task_id"] == "hold"]
        assert (task["state"], task["hostname"]) == ("success", "heir")

        def last_words() -> int:
            return rig.api.log("gated", run_id, "hold", try_number=1, map_index=0).count("task 0 works")

        rig.wait(last_words, "what the dead machine had logged to be in its file", 60)
        assert last_words() == 1
    finally:
        rig.cluster.end("scheduler")
        rig.cluster.start_airflow("scheduler", "scheduler")


def test_tasks_survive_a_minute_without_the_api_server_and_its_metrics_come_later(rig: Rig) -> None:
    with rig.running("delta"):
        run_id = rig.trigger("gated", count=2)
        rig.wait_started(run_id, 2)
        rig.cluster.forget("api-server").kill()
        began = time.time()
        outage = iter(range(2**62))
        pids = [entry["pid"] for entry in rig.ledger(run_id)]

        def alive() -> bool:
            rig.cluster.check()
            assert all(psutil.pid_exists(pid) for pid in pids), "a task died of the outage"
            return next(outage) >= 60

        wait_for(alive, "a minute to pass", timeout=LONG, pause=1.0)
        rig.release(run_id, 0)
        ended = time.time()
        rig.cluster.start_api_server()
        rig.cluster.wait_for_api()
        rig.release(run_id)
        assert rig.finish("gated", run_id) == "success"
        assert_each_once(rig, run_id, 2)
        rig.wait_worker("delta", "idle")
        rig.wait(lambda: len(readings(rig, "delta", began, ended)) >= 20, "the metrics of that minute", 60)
    times = readings(rig, "delta", began, ended)
    assert len(times) == len(set(times)), "a reading came twice"
    assert max(after - before for before, after in pairwise([began, *times, ended])) < 10, times


def readings(rig: Rig, worker: str, since: float, until: float) -> list[float]:
    """Return when the worker's memory was read within a time, by what the collector has; in order."""
    of_worker = [p for p in rig.spans.points() if p.resource.get(names.WORKER_NAME) == worker]
    times = sorted(p.time / 1e9 for p in of_worker if p.metric == names.MEMORY_LIMIT.name)
    return [at for at in times if since <= at <= until]
