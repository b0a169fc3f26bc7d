"""One central site for all acceptance tests: starting it takes longer than most of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from handbook import blocks
from tools import missing

from acceptance.rig import LONG, Rig
from demo.cluster import Cluster
from demo.otlp import Rotel, Store, why_rotel_cannot_run
from demo.postgres import Postgres
from demo.process import free_port

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.acceptance)
            # Each starts components of Airflow, which take a minute where everything else is tested beside them.
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="package")
def spans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Store]]:
    """The endpoint of a real OTLP collector, and the store of what it forwards."""
    reason = why_rotel_cannot_run()
    if reason is not None:
        missing(reason)
    store = Store()
    rotel = Rotel(store, tmp_path_factory.mktemp("rotel"))
    yield rotel.endpoint, store
    rotel.stop()
    store.stop()


@pytest.fixture(scope="package")
def dags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the DAG folder, with that of the docs; the ledger lies beside it."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(HERE / "dags", folder / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    (block,) = [block for block in blocks("docs/first-worker.md") if block.language == "python"]
    (folder / "dags" / "first_edge_task.py").write_text(block.text)
    return folder / "dags"


@pytest.fixture(scope="package")
def rig(postgres_server: Postgres, spans: tuple[str, Store], dags: Path) -> Iterator[Rig]:
    """API server, scheduler and DAG processor, with no worker yet."""
    endpoint, store = spans
    database = postgres_server.new_database()
    cluster = Cluster(
        dags.parent,
        database=database,
        port=free_port(),
        dags=dags,
        otlp=endpoint,
        options={
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
        },
    )
    try:
        cluster.migrate()
        cluster.start_api_server()
        cluster.start_airflow("scheduler", "scheduler")
        cluster.start_airflow("dag-processor", "dag-processor")
        cluster.wait_for_api()
        rig = Rig(cluster, database, store)
        rig.wait(lambda: cluster.api.dag_exists("late"), "the DAGs to be parsed", LONG)
        assert cluster.api.import_errors() == []
        yield rig
    finally:
        left = cluster.stop()
    assert left == [], "processes were left over after everything had been stopped"


@pytest.fixture(autouse=True)
def _everything_lives(request: pytest.FixtureRequest) -> Iterator[None]:
    """Blame the test that ended a component, and leave no worker to the next one."""
    if "rig" not in request.fixturenames:
        yield
        return
    rig: Rig = request.getfixturevalue("rig")
    rig.cluster.check()
    yield
    for name in list(rig.cluster.workers):
        rig.cluster.end(name)
    rig.cluster.check()
