"""A real database behind the code under test: each test that asks for ``database`` runs on every kind there is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow_database import use

if TYPE_CHECKING:
    from airflow_site import AirflowSite
    from far_collector import FarCollector
    from replicas import Replicas
    from served import Api, StartApi

    from edge_otel.executor import EdgeExecutor

NewSession = Callable[[], AbstractContextManager]


@pytest.fixture(scope="session", params=["sqlite", "postgresql", "mysql"])
def database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a database with our tables, and Airflow's as well; of them, on MySQL the audit log alone."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/airflow.db"
    else:
        url = request.getfixturevalue("postgres_server" if request.param == "postgresql" else "mariadb_server")
        url = url.new_database()
    use(url)
    from airflow import settings
    from airflow.models import import_all_models
    from airflow.models.base import Base

    from edge_otel.models.database import EdgeDBManager
    from edge_otel.models.session import new_session

    import_all_models()
    # Airflow picks MySQL's collation when it is imported, which is too late here: its indexes would be too long.
    tables = [Base.metadata.tables["log"]] if request.param == "mysql" else None
    Base.metadata.create_all(settings.engine, tables)
    with new_session() as session:
        EdgeDBManager(session).initdb()
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[NewSession]:
    """Sessions on a database whose tables of ours are empty."""
    from airflow import settings

    if database_url != settings.SQL_ALCHEMY_CONN:
        use(database_url)
    from edge_otel.models.session import new_session
    from edge_otel.models.tables import Base

    with new_session() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())
    yield new_session


@pytest.fixture(scope="session")
def default_api() -> Iterator[Api]:
    """One Edge API with the default options for all tests: it holds nothing, and the database is looked up anew."""
    from served import Api

    from edge_otel.api.app import create_app
    from edge_otel.settings import LogFolder, Settings

    api = Api(create_app(Settings(), LogFolder(Path(os.devnull), 0o755, 0o644)))
    yield api
    api.stop()


@pytest.fixture
def api(default_api: Api, database: NewSession, tmp_path: Path) -> Api:
    """The Edge API with the default options, on a database whose tables are empty."""
    default_api.write_logs_to(tmp_path / "logs")
    return default_api


@pytest.fixture(scope="module")
def running_site(database_url: str) -> Iterator[AirflowSite]:
    """Airflow's API server with the Edge API in it."""
    from airflow_site import running_airflow

    with running_airflow() as site:
        yield site


@pytest.fixture
def audit_log(database: NewSession) -> Callable[[], list[tuple[str, str, dict[str, Any]]]]:
    """Returns what Airflow's audit log has of the test, oldest first: event, who, and the rest of it."""
    from airflow.models.log import Log
    from sqlalchemy import delete, select

    with database() as session:
        session.execute(delete(Log))

    def read() -> list[tuple[str, str, dict[str, Any]]]:
        with database() as session:
            query = select(Log).where(Log.event.startswith("edge_")).order_by(Log.id)
            return [(row.event, row.owner, json.loads(row.extra)) for row in session.scalars(query)]

    return read


@pytest.fixture
def site(running_site: AirflowSite, database: NewSession) -> AirflowSite:
    """The same, on a database in which there is nothing of ours, and of Airflow's no audit log and no DAG."""
    from airflow_site import clear

    with database() as session:
        clear(session)
    return running_site


@pytest.fixture
def start_api(database: NewSession, tmp_path: Path) -> Iterator[StartApi]:
    """Starts the Edge API with these options of ``[edge]`` on a loopback port."""
    from served import Api

    from edge_otel.api.app import create_app
    from edge_otel.settings import LogFolder, Settings

    running: list[Api] = []

    def start(*, channels: bool = False, port: int | None = None, **options: Any) -> Api:
        app = create_app(Settings(**options), LogFolder(tmp_path / "logs", 0o755, 0o644))
        running.append(Api(app, channels=channels, port=port))
        running[-1].write_logs_to(tmp_path / "logs")
        return running[-1]

    yield start
    for api in running:
        api.stop()


@pytest.fixture(scope="session")
def launcher() -> Iterator[Replicas]:
    """Starts the Edge API as processes."""
    from replicas import Replicas

    replicas = Replicas()
    yield replicas
    replicas.stop()


@pytest.fixture
def channel_api(start_api: StartApi, monkeypatch: pytest.MonkeyPatch) -> Api:
    """The Edge API with its hub, which looks at its workers' rows more often than it does in production."""
    monkeypatch.setattr("edge_otel.api.pulse.LOOK_INTERVAL", 0.5)
    return start_api(channels=True)


@pytest.fixture
def connect(channel_api: Api, token: str) -> Iterator[Callable[..., Any]]:
    """Connects workers: by their name and token, to this API or another; they are registered unless told otherwise."""
    from channels import Far
    from websockets.exceptions import ConnectionClosed

    opened: list[Far] = []

    def connect(
        *,
        to: Api = channel_api,
        token: str = token,
        hello: bool = True,
        name: str = "w",
        session: str | None = None,
        max_queue: int = 16,
        **fields: Any,
    ) -> Far:
        far = Far(to.url, token, name, session, max_queue)
        opened.append(far)
        if hello:
            answer = far.hello(**fields)
            assert answer.type == "welcome", answer
        return far

    yield connect
    for far in opened:
        with suppress(ConnectionClosed):
            far.close()


@pytest.fixture(scope="session")
def airflow_site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A migrated SQLite database, and the environment of Airflow's commands on it."""
    from airflow_commands import new_site

    return new_site(tmp_path_factory.mktemp("cli"))


@pytest.fixture
def here(
    airflow_site: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """Runs ``airflow edge`` in this process, by Airflow's own parser: a new one takes seconds."""
    from airflow_commands import run_here

    monkeypatch.setenv("COLUMNS", "250")
    use(airflow_site["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    return lambda *arguments: run_here(("edge", *arguments), capsys)


@pytest.fixture
def fleet(here: Callable[..., Any]) -> NewSession:
    """Sessions on the commands' database, without workers and jobs."""
    from edge_otel.models.session import new_session
    from edge_otel.models.tables import Base

    with new_session() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())
    return new_session


@pytest.fixture
def token(database: NewSession) -> str:
    """A token of worker ``w``."""
    from served import new_token

    return new_token("w")


@pytest.fixture
def executor(database: NewSession) -> EdgeExecutor:
    """An executor on an empty job table."""
    from edge_otel.executor import EdgeExecutor

    return EdgeExecutor(parallelism=8)


@pytest.fixture
def worker(database: NewSession) -> str:
    """The name of a worker that is there."""
    from rows import register

    with database() as session:
        register(session, "w", datetime.now(UTC))
    return "w"


@pytest.fixture
def no_task_instances(database: NewSession) -> Iterator[None]:
    """Leave no rows of Airflow behind."""
    from airflow_rows import clear

    yield
    with database() as session:
        clear(session)


@pytest.fixture(scope="module")
def lasting_gateway() -> Iterator[tuple[FarCollector, Api]]:
    """A collector, and the API in front of it."""
    from far_collector import FarCollector
    from gateways import settings_for
    from served import Api

    from edge_otel.api.app import create_app
    from edge_otel.settings import LogFolder

    far = FarCollector()
    api = Api(create_app(settings_for(f"{far.url}/"), LogFolder(Path(os.devnull), 0o755, 0o644)), channels=True)
    yield far, api
    api.stop()
    far.stop()


@pytest.fixture
def collector(lasting_gateway: tuple[FarCollector, Api]) -> Iterator[FarCollector]:
    """A collector that takes everything, until a test tells it otherwise."""
    from far_collector import taken

    far, _ = lasting_gateway
    yield far
    far.release()
    far.got, far.answer = [], taken


@pytest.fixture
def gateway(lasting_gateway: tuple[FarCollector, Api], collector: FarCollector, database: NewSession) -> Api:
    """The API in front of the collector, for tests after which it is as before."""
    return lasting_gateway[1]


@pytest.fixture
def serve_gateway(start_api: StartApi) -> Callable[..., Api]:
    """Starts an API with a collector of the test's own."""
    from gateways import settings_for

    def start(url: str, **options: Any) -> Api:
        return start_api(channels=True, **vars(settings_for(url, **options)))

    return start


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a collector less long than in production."""
    from edge_otel.api import forwarder

    monkeypatch.setattr(forwarder, "ANSWER_WITHIN", 0.3)
    monkeypatch.setattr(forwarder, "PROBE_WITHIN", 0.2)
