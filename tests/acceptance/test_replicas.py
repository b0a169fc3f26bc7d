"""Several schedulers and several API servers at once."""

from __future__ import annotations

from pathlib import Path

import requests

from acceptance.rig import Rig
from demo.cluster import Cluster
from demo.postgres import Postgres
from demo.process import free_port


def test_two_schedulers_share_the_work_and_double_none_of_it(rig: Rig) -> None:
    rig.cluster.start_airflow("scheduler-2", "scheduler")
    try:
        with rig.running("lambda", concurrency=4):
            runs = [rig.trigger("gated", count=3) for _ in range(3)]
            for run_id in runs:
                rig.release(run_id)
            for run_id in runs:
                assert rig.finish("gated", run_id) == "success"
                assert dict(rig.started(run_id)) == {("hold", index, 1): 1 for index in range(3)}
    finally:
        rig.cluster.end("scheduler-2")


def test_api_servers_that_start_at_once_are_both_ready(postgres_server: Postgres, tmp_path: Path) -> None:
    port, second = free_port(), free_port()
    database = postgres_server.new_database()
    cluster = Cluster(tmp_path, database=database, port=port, dags=tmp_path / "dags", otlp=None)
    try:
        cluster.migrate()
        cluster.start_api_server("api-server-1", port)
        cluster.start_api_server("api-server-2", second)
        for each in (port, second):
            cluster.wait_for_api(port=each)
            answer = requests.get(f"http://127.0.0.1:{each}/edge_worker/readyz", timeout=10)
            assert answer.status_code == requests.codes.ok, answer.text
    finally:
        assert cluster.stop() == []
