"""Puts the daemon together and takes it apart: the one place that knows all of its parts."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edge_otel import __version__
from edge_otel.telemetry import names, variables
from edge_otel.telemetry.spans import Recorder, resource
from edge_worker import daemonlog, environment, signals
from edge_worker.desk import Desk
from edge_worker.destination import destinations
from edge_worker.facts import UserFacts
from edge_worker.faults import BadSetting
from edge_worker.guard import Guard
from edge_worker.host import Host, TaskInterpreter
from edge_worker.journal import Journal
from edge_worker.launch import InterpreterLauncher, Launcher, ZygoteLauncher
from edge_worker.limits import Limits
from edge_worker.link import Link
from edge_worker.logexport import LogExport
from edge_worker.loop import Loop
from edge_worker.meters import Meters
from edge_worker.orphans import Orphans
from edge_worker.outbox import Outbox
from edge_worker.polling import Polling, TokenFile
from edge_worker.receiver import Receiver, listen
from edge_worker.settings import Settings
from edge_worker.shipping import Shipping
from edge_worker.site import Site
from edge_worker.spans import Spans
from edge_worker.station import Station
from edge_worker.watch import Watch

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger(__name__)

OPEN_FILES = 16_384
"""A job needs three at most."""


async def run(settings: Settings, interpreter: TaskInterpreter, users: UserFacts | None, export: LogExport) -> int:
    """Run the daemon until it has left; return the exit code. Raises BadSetting."""
    token = read_token(settings)
    task_file = environment.read_file(settings.task_env_file) if settings.task_env_file else {}
    journal = Journal(settings.state_dir)
    journal.lock()
    outbox = make_outbox(settings, token)
    receiver = Receiver(listen(settings.state_dir) if outbox.on else None, outbox)
    task_env = environment.for_tasks(os.environ, task_file, settings.name, receiver.url)
    prepare_loop()
    try:
        transport = Link(settings, token, Polling(settings, token))
    except OSError as error:
        raise BadSetting(f"--ca-file or --client-cert: {error}") from None
    host = Host(settings.state_dir, interpreter.versions(), datetime.now(UTC))
    if users is not None:
        users.ready()
    station = Station(settings, Watch(settings, host, users), journal, task_env, outbox)
    launcher = make_launcher(settings, task_env)
    who = resource("edge-worker", **{names.WORKER_NAME: settings.name})
    spans = Spans(settings.name, span_recorder(who, outbox), outbox.written)
    meters = Meters(who, outbox, settings.state_dir)
    site = Site(
        worker=settings.name,
        transport=transport,
        launcher=launcher,
        spans=spans,
        meters=meters,
        shipping=Shipping(transport, station.pace, spans, settings.log_rate * 1024),
        execution_api_url=station.execution_api_url,
        executors=station.executors,
        task_env=task_env,
        kill_grace=settings.kill_grace,
        job_nice=settings.job_nice,
        changed=station.changed,
    )
    station.turns |= {"logs": site.shipping.eye, **outbox.turns}
    desk = Desk(station)
    background = observe(station, meters, users, launcher)
    outbox.start()
    export.start(outbox, who)
    await receiver.start()
    await desk.start()
    signals.heed(station)
    log.info("edge-worker %s starts, pid %d, server %s", __version__, os.getpid(), settings.server)
    try:
        code = await Loop(station, transport, site, journal).run()
        log.info("edge-worker has left")
    except Exception:
        # It will end the process, whose own words stay at the site.
        log.critical("a defect ends the daemon; its jobs go on", exc_info=True)
        raise
    finally:
        for task in background:
            task.cancel()
        desk.close()
        await launcher.close()
        await site.shipping.close()
        receiver.close()
        await meters.close()
        await asyncio.to_thread(spans.close)
        await asyncio.to_thread(export.close)
        await asyncio.to_thread(outbox.close)
        await transport.close()
        journal.unlock()
    return code


def read_token(settings: Settings) -> TokenFile:
    """Return the worker's token. Raises BadSetting."""
    token = TokenFile(settings)
    if not token:
        raise BadSetting(f"--token-file: {settings.token_file} holds no token")
    if os.name != "nt" and settings.token_file.stat().st_mode & 0o077:
        log.warning("%s can be read by others; `chmod 600` it", settings.token_file)
    return token


def prepare_loop() -> None:
    """Make the event loop ours, and this process fit for many jobs."""
    allow_files()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(daemonlog.heed_callbacks)
    # Files and checksums; the default would be many threads, each with its own memory arena.
    loop.set_default_executor(ThreadPoolExecutor(2, thread_name_prefix="files"))


def allow_files() -> None:
    """Allow this process as many open files as thousands of jobs need: services often begin with 1024."""
    if sys.platform == "win32":
        return
    import resource as limits

    soft, hard = limits.getrlimit(limits.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == limits.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != limits.RLIM_INFINITY and soft < wanted:
        limits.setrlimit(limits.RLIMIT_NOFILE, (wanted, hard))


def span_recorder(who: dict[str, str], outbox: Outbox) -> Recorder:
    """Return what exports the daemon's spans by the outbox."""

    def exporter() -> SpanExporter:
        from edge_worker.exporters import OutboxSpans

        return OutboxSpans(outbox)

    return Recorder(who, exporter if outbox.on else None)


def make_outbox(settings: Settings, token: TokenFile) -> Outbox:
    """Return the outbox; one that takes nothing where OTEL_SDK_DISABLED says so."""
    to = {} if variables.disabled(os.environ) else destinations(settings, token, os.environ)
    return Outbox(settings.state_dir / "outbox", settings.outbox_size * 1024 * 1024, to)


def observe(station: Station, meters: Meters, users: UserFacts | None, launcher: Launcher) -> list[asyncio.Task[None]]:
    """Start what looks at this worker again and again."""

    def interval() -> float:
        return station.pace().telemetry_interval

    station.turns["meters"] = meters.turn
    tasks = [asyncio.create_task(meters.run(interval, station.moment), name="meters")]
    orphans = Orphans(station, lambda: [*launcher.pids(), *(users.pids() if users is not None else ())])
    tasks.append(asyncio.create_task(orphans.run(), name="orphans"))
    limits = Limits(station.settings.job_memory, station.settings.job_processes)
    tasks.append(asyncio.create_task(Guard(station, limits).run(), name="guard"))
    if users is not None:
        station.turns["facts"] = users.turn
        tasks.append(asyncio.create_task(users.run(interval, station.news.set), name="facts"))
    for task in tasks:
        task.add_done_callback(_tell_defect)
    return tasks


def _tell_defect(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (defect := task.exception()) is not None:
        log.critical("a defect ends %s; the daemon goes on without", task.get_name(), exc_info=defect)


def make_launcher(settings: Settings, task_env: dict[str, str]) -> Launcher:
    """Return what starts jobs as the settings say."""
    if settings.launch == "interpreter":
        return InterpreterLauncher(settings.task_python, task_env)
    if not hasattr(os, "fork"):
        raise BadSetting("--launch zygote needs fork, which this system has not: use --launch interpreter")
    errors = settings.state_dir / "zygote.log"
    return ZygoteLauncher(settings.task_python, task_env, settings.zygote_idle, errors)
