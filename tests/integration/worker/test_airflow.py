"""The real zygote and the real Task SDK, against a fake Execution API; and the job's trace."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from conftest import Daemon, Start, finished, workload
from fake_server import FakeCentral, FakeJob
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

pytestmark = pytest.mark.parametrize("transport", ["channel"])

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"

DAG = """
import logging
from airflow.sdk import dag, task

@dag(schedule=None)
def edge():
    @task
    def well():
        from airflow.sdk.api.client import get_hostname
        logging.getLogger("user").info("I run on %s", get_hostname())
    @task(executor="Site")
    def ill():
        raise RuntimeError("no paper")
    @task
    def killed():
        import os
        os.kill(os.getpid(), 9)
    @task
    def leaving():
        import logging, os, psutil, subprocess
        # Two orphans: one ends at once, the other never.
        subprocess.run(["sh", "-c", "true & setsid sleep 3600 & exec true"], check=True)
        def kin(**what):
            seen = [p.info for p in psutil.process_iter(["pid", "ppid", "name", "status"])]
            return [one["pid"] for one in seen if one.items() >= {"ppid": os.getppid(), **what}.items()]
        while kin(status=psutil.STATUS_ZOMBIE) or not kin(name="sleep"):
            print("waiting for the dead to be taken away, and for the other to begin")
        [left] = kin(name="sleep")
        logging.getLogger("user").info("left %d", left)
    @task
    def greedy():
        import os
        from threading import Event
        held = os.urandom(1024) * 1024 * 700
        Event().wait()
    well()
    ill()
    killed()
    leaving()
    greedy()

edge()
"""


def execute_task(
    central: FakeCentral, task_id: str, bundle: str = "local", flags: str = "01", dag_id: str | None = "edge"
) -> FakeJob:
    id_ = str(uuid4())
    carrier = {"traceparent": f"00-{TRACE}-{PARENT}-{flags}"}
    run_id = "manual__2026-01-01"
    command = {
        "type": "ExecuteTask",
        "token": "workload-token-secret",
        "dag_rel_path": "edge.py",
        "bundle_info": {"name": bundle, "version": None},
        "log_path": f"dag_id=edge/run_id={run_id}/task_id={task_id}/attempt=1.log",
        "sentry_integration": "",
        "ti": {
            "id": id_,
            "task_id": task_id,
            "dag_id": dag_id,
            "run_id": run_id,
            "try_number": 1,
            "map_index": -1,
            "dag_version_id": str(uuid4()),
            "pool_slots": 1,
            "queue": "default",
            "priority_weight": 1,
            "context_carrier": carrier,
        },
    }
    return central.offer(command, task_instance_id=id_, dag_id="edge", task_id=task_id, run_id=run_id, carrier=carrier)


def execute_callback(central: FakeCentral, path: str, **kwargs: str) -> FakeJob:
    id_ = str(uuid4())
    command = {
        "type": "ExecuteCallback",
        "token": "t",
        "dag_rel_path": "edge.py",
        "bundle_info": {"name": "local", "version": None},
        "log_path": f"executor_callbacks/edge/r/{id_}",
        "callback": {"id": id_, "fetch_method": "import_path", "data": {"path": path, "kwargs": kwargs}},
    }
    return central.offer(command, task_instance_id=id_)


def events(job: FakeJob) -> list[str]:
    return [json.loads(line)["event"] for line in bytes(job.log).rpartition(b"\n")[0].splitlines()]


@pytest.fixture
def site(central: FakeCentral, start: Start, tmp_path: Path) -> Daemon:
    return real(central, start, tmp_path)


def real(
    central: FakeCentral,
    start: Start,
    folder: Path,
    dag: str = DAG,
    env: dict[str, str] | None = None,
    **options: Any,
) -> Daemon:
    """Start a daemon whose tasks run in a real Airflow, which exports to the fake site.

    One names its executor, which is not even installed here: without what the server tells no task of the DAG is found.
    """
    central.settings["executors"] = "LocalExecutor,Site:some.executors.SiteExecutor"
    dags = folder / "dags"
    dags.mkdir(exist_ok=True)
    (dags / "edge.py").write_text(dag)
    (dags / "calls.py").write_text("def ring(bell):\n    print('ringing', bell)\n")
    bundle = {
        "name": "local",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(dags)},
    }
    env = {
        **(env or {}),
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
        "OTEL_EXPORTER_OTLP_ENDPOINT": central.origin,
        # A warning of Airflow's own is not what these tests are about.
        "PYTHONWARNINGS": "default",
    }
    return start(**{"task_python": sys.executable, "launch": "zygote", **options}, env=env)


def spans(central: FakeCentral) -> Iterator[tuple[dict[str, str], Any]]:
    for body in central.traces:
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = {item.key: item.value.string_value for item in group.resource.attributes}
            for scope in group.scope_spans:
                for span in scope.spans:
                    yield resource, span


def test_tasks_run_in_forks_of_one_zygote_with_the_workers_name_and_one_trace(
    central: FakeCentral, site: Daemon
) -> None:
    well = execute_task(central, "well")
    central.wait_for(finished(well), 90)
    ill = execute_task(central, "ill")
    central.wait_for(finished(ill), 60)
    killed = execute_task(central, "killed")
    central.wait_for(finished(killed), 60)
    assert "I run on site-1" in events(well)
    assert any("Task failed with exception" in event for event in events(ill))
    states = [call.json["state"] for call in central.executions if call.path.endswith("/state")]
    assert states == ["success", "failed", "failed"]
    # Airflow's supervisor ends well also for a task that has failed: it has told the Execution API.
    assert [job.state for job in (well, ill, killed)] == ["success", "success", "failed"]
    started = [call.json for call in central.executions if call.path.endswith("/run")]
    assert {body["hostname"] for body in started} == {"site-1"}
    site.process.terminate()
    assert site.process.wait(30) == 0
    assert "workload-token-secret" not in site.said + (site.state_dir / "zygote.log").read_text()
    assert "threads were started" not in (site.state_dir / "zygote.log").read_text()

    found = list(spans(central))
    processes = [(resource, span) for resource, span in found if span.name == "process default"]
    assert len(processes) == 3
    for resource, span in processes:
        assert resource["service.name"] == "edge-worker"
        assert resource["edge.worker.name"] == "site-1"
        assert span.trace_id.hex() == TRACE
        assert span.parent_span_id.hex() == PARENT
        assert span.kind == span.SPAN_KIND_CONSUMER
    outcomes = {
        {a.key: a.value.string_value for a in span.attributes}["edge.job.outcome"]: span.status.code
        for _, span in processes
    }
    assert outcomes == {"success": 0, "failed": 2, "killed": 2}
    # The task's own span is a child of the daemon's; one that was killed leaves none.
    workers = [span for _, span in found if span.name.startswith("worker.")]
    assert len(workers) == 2
    assert {span.parent_span_id for span in workers} < {span.span_id for _, span in processes}


def test_callback_runs(central: FakeCentral, site: Daemon) -> None:
    job = execute_callback(central, "calls.ring", bell="front")
    central.wait_for(finished(job), 90)
    assert job.state == "success", events(job)
    assert "ringing front" in events(job)


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_workload_that_cannot_run_tells_why_in_its_log(
    central: FakeCentral, start: Start, tmp_path: Path, launch: str
) -> None:
    real(central, start, tmp_path, launch=launch)
    job = execute_task(central, "well", dag_id=None)
    central.wait_for(finished(job), 90)
    assert job.state == "failed"
    assert any("ValidationError" in event for event in events(job))


def test_task_over_its_limit_is_ended_and_airflow_told_by_its_supervisor(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    real(central, start, tmp_path, job_memory=500)
    greedy = execute_task(central, "greedy")
    central.wait_for(finished(greedy), 90)
    assert greedy.end is not None
    assert (greedy.state, greedy.end["exit_code"]) == ("failed", -9)
    assert "more than the 500 MiB that --job-memory allows" in greedy.end["error"]
    assert greedy.end["error"] in events(greedy)
    assert [call.json["state"] for call in central.executions if call.path.endswith("/state")] == ["failed"]


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_real_task_leaves_neither_zombie_nor_orphan(
    central: FakeCentral, start: Start, tmp_path: Path, launch: str
) -> None:
    real(central, start, tmp_path, launch=launch)
    leaving = execute_task(central, "leaving")
    central.wait_for(finished(leaving), 90)
    assert leaving.state == "success"
    assert "Task failed with exception" not in events(leaving)
    [left] = [event.split()[1] for event in events(leaving) if event.startswith("left ")]
    assert events(leaving)[-1].endswith(f"which were ended: sleep (pid {left}).")
    assert not psutil.pid_exists(int(left))


def test_dead_collector_delays_neither_job_nor_exit(central: FakeCentral, start: Start) -> None:
    daemon = start(env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    job = central.offer(workload("pass"), carrier={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    central.wait_for(finished(job), 10)
    daemon.process.terminate()
    assert daemon.process.wait(15) == 0


def test_unsampled_job_leaves_no_span_and_an_adopted_one_keeps_its_ids(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": central.origin}
    go = tmp_path / "go"
    first = start(env=env)
    quiet = central.offer(workload("pass"), carrier={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    central.wait_for(finished(quiet))
    job = central.offer(
        workload(
            f"log(workload['ti']['context_carrier']['traceparent'].encode()); wait_for_file({str(go)!r})",
            ti={"context_carrier": {"traceparent": f"00-{TRACE}-{PARENT}-01"}},
        ),
        carrier={"traceparent": f"00-{TRACE}-{PARENT}-01"},
    )
    central.wait_for(lambda: job.log)
    first.process.kill()
    first.process.wait(10)
    second = start(env=env)
    go.touch()
    central.wait_for(finished(job))
    second.process.terminate()
    second.process.wait(15)
    found = [span for _, span in spans(central) if span.name == "process default"]
    assert len(found) == 1
    handed = bytes(job.log).decode().split("-")
    assert (found[0].trace_id.hex(), found[0].span_id.hex()) == (handed[1], handed[2])
