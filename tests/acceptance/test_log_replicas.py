"""Two API servers with a disk each: Airflow's own log API shows the same log from both, while it grows and after it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from acceptance.round_robin import RoundRobin
from demo.airflow_api import UNFINISHED, AirflowApi
from demo.cluster import Cluster
from demo.edge import EdgeWorker, create_token
from demo.postgres import Postgres
from demo.process import free_port

LINES = 600
"""A tenth of a second apart: a minute."""
DAG = f"""
import time
from airflow.sdk import dag, task

@dag(schedule=None, catchup=False)
def steady():
    @task
    def talk():
        for number in range({LINES}):
            print(f"tick {{number}}", flush=True)
            time.sleep(0.1)
    talk()

steady()
"""
PATIENCE = 90.0


class Site:
    """The cluster, its two API servers, and the disk of each."""

    def __init__(self, cluster: Cluster, database: str) -> None:
        self.cluster = cluster
        self.disks = [cluster.folder / "disk-1", cluster.folder / "disk-2"]
        self.ports = [cluster.port, free_port()]
        self.apis = [AirflowApi(f"http://127.0.0.1:{port}") for port in self.ports]
        self._engine = sa.create_engine(database, poolclass=sa.NullPool)

    def start(self, workers_server: str) -> None:
        """Start everything; the worker reaches the API servers by this URL."""
        self.cluster.migrate()
        for number, (port, disk) in enumerate(zip(self.ports, self.disks, strict=True), 1):
            arguments = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
            folder = {"AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(disk)}
            self.cluster.start_airflow(f"api-server-{number}", "api-server", *arguments, **folder)
        for name in ("scheduler", "dag-processor"):
            self.cluster.start_airflow(name, name)
        worker = EdgeWorker(self.cluster, "far", token=create_token(self.cluster, "*"))
        worker.start("--server", f"{workers_server}/edge_worker")
        for port in self.ports:
            self.cluster.wait_for_api(port=port)
        self.cluster.wait(lambda: self.apis[0].dag_exists("steady"), "the DAG to be parsed", PATIENCE)

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        with self._engine.connect() as connection:
            found: int = connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one()
            return found

    def page(self, api: AirflowApi, run_id: str, token: str | None = None) -> tuple[list[int], str | None]:
        """Return the numbers of the lines that one answer has, and the token to go on with."""
        path = f"dags/steady/dagRuns/{run_id}/taskInstances/talk/logs/1"
        options: dict[str, Any] = {"headers": {"Accept": "application/json"}, "params": {"token": token}}
        page = api.call("GET", path, **options)
        said = (re.fullmatch(r"tick (\d+)", str(line.get("event"))) for line in page["content"])
        return [int(match[1]) for match in said if match], page["continuation_token"]


@pytest.fixture
def site(postgres_server: Postgres, tmp_path: Path) -> Iterator[Site]:
    """Two API servers that keep logs in the database, and a worker that reaches them in turn."""
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "steady.py").write_text(DAG)
    database = postgres_server.new_database()
    options = {
        "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "edge_otel.logging_config.LOGGING_CONFIG",
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": "edge://",
        # A second and a half.
        "AIRFLOW__EDGE__JOB_SUCCESS_PURGE": "0.025",
    }
    cluster = Cluster(tmp_path, database=database, port=free_port(), dags=dags, otlp=None, options=options)
    site = Site(cluster, database)
    proxy = RoundRobin(*site.ports)
    try:
        site.start(proxy.url)
        yield site
    finally:
        left = cluster.stop()
        for api in site.apis:
            api.close()
        proxy.close()
    assert left == []


def test_a_log_is_shown_live_and_whole_by_both_api_servers_and_outlives_its_job(site: Site) -> None:
    run_id = site.apis[0].trigger("steady")
    site.cluster.wait(
        lambda: site.apis[0].states("steady", run_id).get("talk") == "running", "the task to run", PATIENCE
    )
    seen: list[list[int]] = [[], [], []]
    lengths: list[set[int]] = [set(), set()]
    tokens: list[str | None] = [None, None, None]
    turns = cycle(site.apis)
    while site.apis[0].run_state("steady", run_id) in UNFINISHED:
        site.cluster.check()
        for number, api in enumerate(site.apis):
            whole, _ = site.page(api, run_id)
            assert whole == list(range(len(whole))), "from the start, in order, nothing twice"
            lengths[number].add(len(whole))
        # The third asks one server after the other, as behind a balancer.
        for number, api in enumerate([*site.apis, next(turns)]):
            if tokens[number] is not None or not seen[number]:
                more, tokens[number] = site.page(api, run_id, tokens[number])
                seen[number] += more
    assert all(len(found) > LINES / 20 for found in lengths), "the log grew before our eyes"
    for lines in seen:
        assert lines == list(range(len(lines))), "who goes on where the last answer ended sees each line once"

    everything = list(range(LINES))

    def whole_from_both() -> bool:
        return all(site.page(api, run_id) == (everything, None) for api in site.apis)

    site.cluster.wait(whole_from_both, "the whole log from both servers", PATIENCE)

    site.cluster.wait(lambda: site.count("edge_otel_job") == 0, "the job's row to be purged", PATIENCE)
    # That of a server which got an end, and of one which just looked for logs without a file: both at times.
    files = [file for disk in site.disks for file in disk.rglob("*.log") if "dag_id=steady" in str(file)]
    assert len(files) in (1, 2), "a server wrote it to its own disk"
    assert site.count("edge_otel_log_chunk") > 0
    assert whole_from_both()
