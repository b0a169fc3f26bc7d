"""An unmodified worker of the Edge provider 5.1.0, from its own virtual environment, against our API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from acceptance.rig import LONG, Rig
from acceptance.test_dag_run import assert_everything_ran
from demo.cluster import healthy
from demo.environment import site
from demo.process import free_port


@pytest.fixture
def migration_api(rig: Rig) -> Iterator[int]:
    """The port of a second API server that also accepts edge3's shared secret."""
    port = free_port()
    command = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    rig.cluster.start_airflow(
        "api-server-edge3", "api-server", *command, AIRFLOW__EDGE__ACCEPT_SHARED_SECRET_TOKENS="True"
    )
    rig.wait(lambda: healthy(port), "the second API server")
    yield port
    rig.cluster.end("api-server-edge3")


def test_an_unmodified_edge3_worker_runs_the_dag(rig: Rig, edge3_python: Path, migration_api: int) -> None:
    folder = rig.cluster.folder / "sites" / "old"
    env = {
        **site(rig.cluster.base, home=folder / "airflow", dags=rig.cluster.dags),
        "PATH": f"{edge3_python.parent}:/usr/bin:/bin",
        "AIRFLOW__API_AUTH__JWT_SECRET": rig.cluster.keys.jwt,
        "AIRFLOW__CORE__EXECUTOR": "airflow.providers.edge3.executors.edge_executor.EdgeExecutor",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{rig.cluster.url}/execution/",
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "airflow.utils.net.getfqdn",
        "AIRFLOW__EDGE__API_ENABLED": "True",
        "AIRFLOW__EDGE__API_URL": f"http://127.0.0.1:{migration_api}/edge_worker/v1/rpcapi",
        "AIRFLOW__EDGE__HEARTBEAT_INTERVAL": "2",
        "AIRFLOW__EDGE__JOB_POLL_INTERVAL": "1",
    }
    command = ["airflow", "edge", "worker", "--queues", "default", "--concurrency", "4", "--edge-hostname", "old"]
    rig.cluster.start_worker("old", [edge3_python, "-m", *command], env)
    rig.wait_worker("old", "idle")
    run_id = rig.trigger("everything")
    assert rig.finish("everything", run_id, LONG) == "failed", "the task that fails on purpose fails the run"
    assert_everything_ran(rig, run_id, "old")
    daemon = rig.cluster.forget("old")
    daemon.stop()
    rig.wait_worker("old", "offline")
