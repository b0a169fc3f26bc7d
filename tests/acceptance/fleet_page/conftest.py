"""One site and one browser for all tests of the fleet page."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser
from tools import missing

from acceptance.fleet_page.browser import Tab, chromium, find_chromium, tab
from acceptance.fleet_page.site import FleetSite, fleet_site
from demo.postgres import Postgres
from demo.process import free_port
from edge_otel.models import wishes, workers
from tests.integration import rows

DAGS = Path(__file__).parents[1] / "dags"
XSS = '<img src=x onerror="window.__xss=1">\'"><script>window.__xss=1</script>{{7*7}}'
SHORT_XSS = "<b onclick=window.__xss=1>\"'&lt;"
Opening = Callable[..., AbstractContextManager[Tab]]


@pytest.fixture(scope="package")
def chrome() -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        missing("chromium is not installed: apt-get install chromium")
    with chromium(program) as browser:
        yield browser


@pytest.fixture(scope="package")
def fleet(chrome: Browser, postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetSite]:
    folder = tmp_path_factory.mktemp("fleet")
    shutil.copytree(DAGS, folder / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    with fleet_site(postgres_server.new_database(), folder, folder / "dags", free_port()) as site:
        yield site


@pytest.fixture
def opening(chrome: Browser, fleet: FleetSite) -> Opening:
    """Open a tab for a user; whatever goes wrong in it fails the test."""

    def opened(user: str = "ann", **options: Any) -> AbstractContextManager[Tab]:
        return tab(chrome, fleet.cluster.url, fleet.login(user), **options)

    return opened


@pytest.fixture(autouse=True)
def _everything_lives(fleet: FleetSite) -> Iterator[None]:
    """Blame the test that ended a component, and give the next one all workers, none in maintenance."""
    yield
    fleet.cluster.check()
    for name in fleet.workers:
        if name not in fleet.cluster.workers:
            fleet.start(name)
        fleet.end_maintenance(name)


@pytest.fixture
def evil(fleet: FleetSite) -> Iterator[None]:
    """Two workers and two jobs with markup wherever they say anything; the first as whoever holds its token can."""
    now = datetime.now(UTC)
    report = {
        "state": "maintenance mode",
        "jobs_active": 0,
        "queues": [XSS],
        "sysinfo": {"airflow_version": "3.3.2", "edge_provider_version": "0.1.0", "kernel": XSS, "concurrency": 1},
        "maintenance_comments": XSS,
        "maintenance_origin": "local",
        "session": "evil",
        "log": {
            "source": "evil",
            "lines": [{"number": 1, "time": now.isoformat(), "level": 40, "logger": SHORT_XSS, "text": XSS}],
        },
    }
    bearer = {"Authorization": f"Bearer {fleet.token}"}
    answer = requests.post(f"{fleet.cluster.edge_url}/v1/worker/evil", json=report, headers=bearer, timeout=60)
    answer.raise_for_status()
    with fleet.session() as session:
        # The API refuses a worker of such versions.
        versions = {"airflow_version": XSS, "edge_provider_version": XSS}
        rows.register(session, "team-1", now, team=SHORT_XSS, sysinfo=versions)
        fields = {"dag_id": "everything", "task_id": XSS, "run_id": XSS, "queue": XSS}
        jobs = [rows.queue_job(session, now, **fields | {"run_id": run}) for run in (XSS, "javascript:window.__xss=1")]
        session.execute(rows.Job.__table__.update().where(rows.Job.id == jobs[1]).values(worker="evil", error=XSS))
    yield
    with fleet.session() as session:
        session.execute(rows.Job.__table__.delete().where(rows.Job.id.in_(jobs)))
        for name in ("evil", "team-1"):
            workers.get(session, name).state = "offline"
            wishes.remove(session, name, datetime.now(UTC))
