"""A log that is hard to carry reads the same whether the task ran at the edge or beside the scheduler."""

from __future__ import annotations

import json
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from demo.airflow_api import UNFINISHED
from demo.cluster import EDGE_EXECUTOR, Cluster
from demo.edge import EdgeWorker, create_token
from demo.otlp import Store
from demo.postgres import Postgres
from demo.process import free_port

MASKED, PASSWORD = "hush-Vq81x-masked", "hush-Zp47k-of-the-connection"
EXECUTORS = ("EdgeExecutor", "LocalExecutor")
HUGE = 5_000_000
PATIENCE = 60.0
DAGS = f"""
import logging
import subprocess
import sys
import time
from pathlib import Path

from airflow.sdk import BaseHook, dag, task
from airflow.sdk.log import mask_secret

def loud():
    mask_secret("{MASKED}")
    password = BaseHook.get_connection("vault").password
    raw = sys.stdout.buffer if hasattr(sys.stdout, "buffer") else open(1, "wb", closefd=False)
    print("a line; {MASKED} and", password)
    logging.getLogger("loud").warning("a record with %s and %s", "{MASKED}", password)
    logging.getLogger("loud").error("\\x1b[31mred\\x1b[0m, \\U0001f600, NUL \\0, CR \\r in between")
    sys.stdout.flush()
    for piece in (
        bytes(range(256)) + b"\\n",
        b"not UTF-8: \\xff\\xfe\\xc3\\x28\\xed\\xa0\\x80 and \\0 NUL\\n",
        "\\x1b[1;32mgreen\\x1b[0m \\U0001f680 \\u4f60\\u597d e\\u0301\\n".encode(),
        b"one\\r\\ntwo\\rthree\\r\\n\\r\\n",
        b"password " + password.encode() + b" in bytes\\n",
        b"x" * {HUGE} + b"\\n",
        b"the end has no line feed",
    ):
        raw.write(piece)
        raw.flush()
    print()
    script = "import sys; sys.stdout.buffer.write(b'raw \\\\xff\\\\0 ' + sys.argv[1].encode() + b'\\\\r\\\\n')"
    subprocess.run([sys.executable, "-c", script, password], check=True)
    print("all but the last", flush=True)
    while not (Path(__file__).parents[1] / "go").exists():
        time.sleep(0.05)
    print("the last line")

for name in {EXECUTORS}:
    @dag(dag_id=name, schedule=None, catchup=False)
    def both():
        task(task_id="loud", executor=None if name == "{EXECUTORS[0]}" else name)(loud)()

    both()
"""
VARYING = re.compile(
    r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b|0x[0-9a-f]+|\d{4}-\d\d-\d\d[T ][\d:.]+(Z|\+[\d:]+)?|manual__[\w:.+-]+"
    r"|EdgeExecutor|LocalExecutor|pid=\d+|\b\d+\.\d{3,}\b|_ms\": \d+"
)
"""Ids, addresses, times, and whose run it is."""


class Site:
    """A central site whose scheduler also runs tasks itself, and a worker."""

    def __init__(self, cluster: Cluster, database: str, store: Store, worker: EdgeWorker) -> None:
        self.cluster, self.store, self.worker = cluster, store, worker
        self._engine = sa.create_engine(database, poolclass=sa.NullPool)

    def page(self, dag_id: str, run_id: str) -> list[Any]:
        """Return all of a log as Airflow's log API gives it to its page."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/loud/logs/1"
        headers = {"Accept": "application/json"}
        answer = self.cluster.api.call("GET", path, headers=headers, params={"full_content": "true"})
        content: list[Any] = answer["content"]
        return content

    def has(self, dag_id: str, run_id: str, line: str) -> bool:
        """Return whether a log has this line."""
        try:
            page = self.page(dag_id, run_id)
        except requests.HTTPError as refusal:
            # Its task is not there yet.
            assert refusal.response.status_code == 404
            return False
        return any(isinstance(found, dict) and found.get("event") == line for found in page)

    def chunks(self) -> bytes:
        """Return all logs that are in the store."""
        query = sa.text('SELECT data FROM edge_otel_log_chunk ORDER BY job_id, claim, "offset"')
        with self._engine.connect() as connection:
            return b"".join(zlib.decompress(data, wbits=47) for data in connection.execute(query).scalars())


@pytest.fixture
def site(postgres_server: Postgres, tmp_path: Path) -> Iterator[Site]:
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "both.py").write_text(DAGS)
    store = Store()
    database = postgres_server.new_database()
    cluster = Cluster(
        tmp_path,
        database=database,
        port=free_port(),
        dags=dags,
        otlp=store.endpoint,
        executor=f"{EDGE_EXECUTOR},LocalExecutor",
        options={
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "edge_otel.logging_config.LOGGING_CONFIG",
            "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
            "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": "edge://",
        },
    )
    try:
        cluster.migrate()
        cluster.start_api_server()
        cluster.start_airflow("scheduler", "scheduler")
        cluster.start_airflow("dag-processor", "dag-processor")
        worker = EdgeWorker(cluster, "far", token=create_token(cluster, "far"))
        worker.start()
        cluster.wait_for_api()
        for executor in EXECUTORS:
            cluster.wait(lambda named=executor: cluster.api.dag_exists(named), "the DAGs to be parsed", PATIENCE)  # type: ignore[misc]
        yield Site(cluster, database, store, worker)
    finally:
        (tmp_path / "go").touch()
        left = cluster.stop()
        store.stop()
    assert left == []


def alike(page: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the lines by their logger, without what differs from run to run and where they were read.

    Standard output and records come by different ways, so that only the order within each is certain.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for line in page:
        # Not the header, which says where it was read.
        if line.keys() - {"event", "sources"}:
            facts = {name: value for name, value in line.items() if name != "timestamp"}
            found[str(line.get("logger"))].append(VARYING.sub("…", json.dumps(facts, sort_keys=True)))
    return dict(found)


def differences(one: list[Any], other: list[Any]) -> list[tuple[str, str]]:
    """Return the beginnings of lines that two readings of logs do not share."""
    here, there = alike(one), alike(other)
    pairs = ((here.get(logger, []), there.get(logger, [])) for logger in sorted(here.keys() | there.keys()))
    lines = [pair for left, right in pairs for pair in zip_longest(left, right, fillvalue="")]
    return [(left[:300], right[:300]) for left, right in lines if left != right]


def secrets_in(folder: Path) -> list[str]:
    """Return the files below a folder that have a secret."""
    found = []
    for path in folder.rglob("*"):
        # What waits for the collector goes while we look.
        with suppress(OSError):
            data = path.read_bytes()
            found += [str(path) for secret in (MASKED, PASSWORD) if secret.encode() in data]
    return found


def test_a_log_that_is_hard_to_carry_reads_as_it_does_for_a_local_task(site: Site) -> None:
    connection = {"connection_id": "vault", "conn_type": "generic", "login": "u", "password": PASSWORD}
    site.cluster.api.call("POST", "connections", json=connection)
    runs = {executor: site.cluster.api.trigger(executor) for executor in EXECUTORS}
    edge, local = EXECUTORS

    for executor, run_id in runs.items():
        wait = f"the live log of {executor}"
        site.cluster.wait(lambda e=executor, r=run_id: site.has(e, r, "all but the last"), wait, PATIENCE)  # type: ignore[misc]
    assert differences(site.page(edge, runs[edge]), site.page(local, runs[local])) == [], "live"
    assert secrets_in(site.worker.state_folder) == []

    (site.cluster.folder / "go").touch()
    for executor, run_id in runs.items():
        state = lambda e=executor, r=run_id: site.cluster.api.run_state(e, r)  # noqa: E731
        site.cluster.wait(lambda look=state: look() not in UNFINISHED, "the end", PATIENCE)  # type: ignore[misc]
        assert state() == "success"
    site.cluster.wait(lambda: site.has(edge, runs[edge], "the last line"), "the end of the log", PATIENCE)
    pages = {executor: site.page(executor, run_id) for executor, run_id in runs.items()}
    assert differences(pages[edge], pages[local]) == [], "from the files"
    whole = json.dumps(pages[edge])
    assert "x" * HUGE in whole
    assert whole.count("***") >= 6, "the masked secrets"

    # A log of this size is written in the background.
    files = site.cluster.folder / "airflow" / "logs"
    (file,) = site.cluster.wait(lambda: [*files.glob(f"dag_id={edge}/**/attempt=1.log")], "the file", PATIENCE)
    file.unlink()
    stored = site.page(edge, runs[edge])
    assert differences(stored, pages[local]) == [], "from the store"

    assert secrets_in(site.worker.state_folder) == secrets_in(files) == []
    # Airflow repeats unmasked on the scheduler's output what its local tasks log.
    assert [name for name in secrets_in(site.cluster.logs) if not name.endswith("scheduler.log")] == []
    for place in (site.chunks().decode(), repr(site.store.records()), repr(site.store.spans())):
        assert len(place) > 100
        assert MASKED not in place
        assert PASSWORD not in place
    lines = sum(map(len, alike(stored).values()))
    print(f"\n{lines} lines are the same at the edge and beside the scheduler: live, from the file, from the store")
