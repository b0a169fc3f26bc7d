"""The application: routes, one error shape, and what they share."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from edge_otel import __version__, remote_log
from edge_otel.api import channel, health, metrics, otlp, refusals, v1_jobs, v1_workers, v2_logs, v2_tokens
from edge_otel.api.auth import Authenticator
from edge_otel.api.body_limit import BodyLimit
from edge_otel.api.farewell import on_signals
from edge_otel.api.forwarder import Forwarder
from edge_otel.api.hub import Hub
from edge_otel.api.log_export import Exporter
from edge_otel.api.log_files import Writer
from edge_otel.api.log_sweep import Sweep, homes
from edge_otel.api.log_upload import Uploader
from edge_otel.api.timing import Timing
from edge_otel.errors import NotMigrated
from edge_otel.models import fleet
from edge_otel.models.database import DatabaseFailure, check_migrated
from edge_otel.models.session import new_session
from edge_otel.settings import LogFolder, Settings, airflow_configuration
from edge_otel.telemetry import central

log = logging.getLogger(__name__)

_DESCRIPTION = """
What edge workers talk to. Workers authenticate with the token that `airflow edge token create` prints.

Errors have one shape: `error` is a name for programs, `detail` says what happened and what to do, and `error_id` finds
the entry in the server's log.
"""


def create_app(settings: Settings, log_folder: LogFolder, *, ui: bool = False) -> FastAPI:
    """Return the Edge API. Its lifespan starts and stops what works between requests. With ``ui``, there is the fleet
    page, too: that needs Airflow's login around it."""
    app = FastAPI(title="edge-otel Edge API", version=__version__, description=_DESCRIPTION, lifespan=_lifespan)
    app.state.settings = settings
    app.state.log_folder = log_folder
    app.state.log_writer = Writer(log_folder)
    app.state.authenticator = Authenticator(settings.accept_shared_secret_tokens)
    app.state.fleet = metrics.Fleet()
    collector = central.collector(settings, os.environ)
    app.state.forwarder = Forwarder(collector)
    app.state.exports_logs = settings.otlp_task_logs and collector is not None
    app.state.spans = central.recorder("edge-api", collector)
    app.add_middleware(BodyLimit)
    app.add_middleware(Timing)
    refusals.install(app)
    for routes in (health, metrics, v1_workers, v1_jobs, v2_logs, v2_tokens, otlp, channel):
        app.include_router(routes.router)
    if ui:
        # It brings in Airflow's API server, which the Edge API on its own does without.
        from edge_otel.api import ui_page

        ui_page.install(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state = app.state
    await run_in_threadpool(_prepare)
    await run_in_threadpool(state.spans.load)
    await state.forwarder.start()
    writer = state.log_writer
    hub = state.hub = Hub(state.settings, writer, state.spans)
    looks = Sweep(writer, homes(exports=state.exports_logs), timedelta(days=state.settings.log_retention))
    sweep = asyncio.create_task(looks.run(), name="edge-log-sweep")
    exporter = Exporter(state.forwarder)
    if state.exports_logs:
        exporter.start()
    uploader = Uploader(await run_in_threadpool(remote_log.sink), state.log_folder)
    uploader.start()
    hub.start()

    def leave() -> None:
        hub.leave()
        state.forwarder.leave()

    try:
        with on_signals(leave):
            yield
    finally:
        sweep.cancel()
        await hub.stop()
        state.forwarder.leave()
        await exporter.stop()
        await uploader.stop()
        await state.forwarder.close()
        state.fleet.close()
        await run_in_threadpool(state.spans.close)
        await asyncio.gather(sweep, return_exceptions=True)
        await run_in_threadpool(writer.close)


def _prepare() -> None:
    """Log what is missing: the API answers 503 then, rather than take the rest of Airflow's API server down."""
    try:
        with new_session() as session:
            check_migrated(session)
            # Airflow loads all of its models at the first query, and the first job should not wait for that.
            fleet.stored(session, [""])
    except NotMigrated as error:
        log.error("%s", error)  # noqa: TRY400 - the message says it all
    except DatabaseFailure as error:
        log.error("The database cannot be reached: %s", error.orig)  # noqa: TRY400


def create_configured_app(*, ui: bool = False) -> FastAPI:
    """Return the Edge API as Airflow's configuration wants it."""
    conf = airflow_configuration()
    return create_app(Settings.read(conf), LogFolder.read(conf), ui=ui)
