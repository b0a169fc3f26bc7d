"""A task's log leaves the store: to a real S3 by Airflow's own remote log, and line by line to a real collector."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from acceptance.rig import Rig
from demo.airflow_api import AirflowApi
from demo.process import free_port
from demo.telemetry import Record
from edge_otel.telemetry import context

# The S3 is shared with the integration tests.
sys.path.append(str(Path(__file__).parents[1] / "integration"))
from remote_s3 import S3, environment
from s3_environment import module_path

LINES = [f"line {number}" for number in range(300)]


@contextmanager
def api_server(rig: Rig, folder: str, s3_port: int, disk: Path) -> Iterator[AirflowApi]:
    """Run one more API server on a disk of its own, which alone knows of the S3 and its credentials."""
    port = free_port()
    options = {
        **environment(s3_port, folder),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(disk),
        "PYTHONPATH": module_path(),
    }
    if folder.startswith("edge"):
        options["AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS"] = "edge_otel.logging_config.LOGGING_CONFIG"
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    rig.cluster.start_airflow("api-server-s3", "api-server", *arguments, **options)
    api = AirflowApi(f"http://127.0.0.1:{port}")
    try:
        rig.cluster.wait_for_api(port=port)
        yield api
    finally:
        api.close()
        rig.cluster.end("api-server-s3")


def talk(api: AirflowApi, run_id: str) -> list[str]:
    """Return the numbered lines of the task that logs many, as the log API shows them."""
    return [line for line in api.log("everything", run_id, "talkative") if line.startswith("line ")]


def log_of(rig: Rig, job_id: str) -> list[dict[str, object]]:
    return rig.rows("SELECT path, upload FROM edge_otel_log WHERE job_id = :job_id", job_id=job_id)


def test_a_log_is_shown_while_s3_is_away_and_out_of_s3_when_the_store_and_the_file_are_gone(
    rig: Rig, tmp_path: Path
) -> None:
    with rig._engine.begin() as connection:
        # Logs of other tests would come first, one by one while S3 is away.
        connection.execute(sa.text("UPDATE edge_otel_log SET upload = 'done'"))
    port = free_port()
    with api_server(rig, "edge+s3://bucket/logs", port, tmp_path / "disk-1") as api:
        with rig.running("sinking"):
            run_id = rig.trigger("everything")
            assert rig.finish("everything", run_id) == "failed", "the task that fails on purpose fails the run"
        job = next(job for job in rig.jobs(run_id) if job["task_id"] == "talkative")
        rig.wait(lambda: log_of(rig, job["id"])[0]["upload"] == "begun", "an attempt to upload")
        assert talk(api, run_id) == LINES, "from the store"
        s3 = S3(port, tmp_path)
        try:
            rig.wait(lambda: log_of(rig, job["id"])[0]["upload"] == "done", "the upload")
            path = str(log_of(rig, job["id"])[0]["path"])
            assert talk(api, run_id) == LINES
            # The scheduler does so some minutes later; then the store has nothing to keep the log for.
            with rig._engine.begin() as connection:
                connection.execute(sa.text("DELETE FROM edge_otel_job WHERE id = :id"), {"id": job["id"]})
            rig.wait(lambda: not log_of(rig, job["id"]), "the store to be purged")
            assert not (tmp_path / "disk-1" / path).exists()
            assert talk(api, run_id) == LINES, "out of S3"
            assert (s3.get(path) or b"").count(b'"line 7"') == 1
        finally:
            s3.stop()


def test_each_line_of_a_task_is_a_record_in_the_trace_of_its_task(rig: Rig) -> None:
    with rig.running("telling"):
        run_id = rig.trigger("everything")
        rig.finish("everything", run_id)
    job = next(job for job in rig.jobs(run_id) if job["task_id"] == "talkative")

    def told() -> list[Record]:
        about = {"airflow.dag_run.run_id": run_id, "airflow.task_id": "talkative"}
        return [r for r in rig.spans.records() if about.items() <= r.attributes.items() and r.body.startswith("line ")]

    rig.wait(lambda: len(told()) >= len(LINES), "the lines at the collector")
    assert Counter(record.body for record in told()) == dict.fromkeys(LINES, 1)
    assert {(record.trace_id, record.span_id) for record in told()} == {context.ids(job["carrier"])}
    assert {record.resource["edge.worker.name"] for record in told()} == {"telling"}
    assert {record.severity for record in told()} == {"INFO"}
    times = [record.time for record in sorted(told(), key=lambda record: LINES.index(record.body))]
    assert times == sorted(times)
    assert times[0] > 0
