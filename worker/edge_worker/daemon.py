"""Puts the daemon together and takes it apart: the one place that knows all of its parts."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from edge_otel import __version__
from edge_otel.telemetry import names, variables
from edge_otel.telemetry.spans import Recorder, resource
from edge_worker import daemonlog, environment, signals
from edge_worker.desk import Desk
from edge_worker.destination import destinations
from edge_worker.facts import UserFacts
from edge_worker.faults import BadSetting
from edge_worker.ground import Ground
from edge_worker.guard import Guard
from edge_worker.host import Host, TaskInterpreter
from edge_worker.journal import Journal
from edge_worker.launch import InterpreterLauncher, Launcher, ZygoteLauncher
from edge_worker.link import Link
from edge_worker.logexport import LogExport
from edge_worker.logtail import LogTail
from edge_worker.loop import Loop
from edge_worker.meters import Meters
from edge_worker.notify import Notifier, watch
from edge_worker.orphans import Orphans
from edge_worker.outbox import Outbox
from edge_worker.polling import Polling, TokenFile
from edge_worker.receiver import Receiver, listen
from edge_worker.reload import Reload
from edge_worker.renewal import follow
from edge_worker.settings import Settings
from edge_worker.shipping import Shipping
from edge_worker.site import Site
from edge_worker.spans import Spans
from edge_worker.station import Station
from edge_worker.watch import Watch

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger(__name__)

AGAIN = 10.0
"""Seconds until a loop that had a defect begins again."""

STOPPED_WITHIN = 20.0
"""Seconds for the parts to let go: each has its own bound, but may wait for a thread that hangs."""

OPEN_FILES = 16_384
"""A job needs three at most."""


async def run(
    settings: Settings,
    sources: Callable[[], Settings],
    interpreter: TaskInterpreter,
    users: UserFacts | None,
    export: LogExport,
    tail: LogTail,
) -> int:
    """Run the daemon until it has left; return the exit code. ``sources`` reads the settings again. Raises
    BadSetting."""
    prepare_loop()
    daemon = Daemon(settings, sources, interpreter, users, export, tail)
    await daemon.start()
    try:
        code = await daemon.loop()
        log.info("edge-worker has left")
    except Exception:
        # It will end the process, whose own words stay at the site.
        log.critical("a defect ends the daemon; its jobs go on", exc_info=True)
        raise
    finally:
        await daemon.stop()
    return code


class Daemon:
    """All parts. Each is started and stopped here."""

    def __init__(
        self,
        settings: Settings,
        sources: Callable[[], Settings],
        interpreter: TaskInterpreter,
        users: UserFacts | None,
        export: LogExport,
        tail: LogTail,
    ) -> None:
        """Lock the state folder and put the parts together. Raises BadSetting."""
        self._settings = settings
        self._interpreter, self._users, self._export = interpreter, users, export
        self._notifier = Notifier(os.environ)
        self._tasks: list[asyncio.Task[None]] = []
        token = read_token(settings)
        users_env = users_environment(settings)
        self._journal = Journal(settings.state_dir)
        self._journal.lock()
        self._outbox = make_outbox(settings, token)
        self._receiver = Receiver(listen(settings.state_dir) if self._outbox.on else None, self._outbox)
        try:
            self._transport = Link(settings, token, Polling(settings, token))
        except OSError as error:
            raise BadSetting(f"--ca-file or --client-cert: {error}") from None
        host = Host(settings.state_dir, interpreter.versions(), datetime.now(UTC))
        if users is not None:
            users.ready()
        task_env = environment.for_tasks(os.environ, users_env, settings.name, self._receiver.url)
        eye = Watch(settings, host, users)
        station = self._station = Station(settings, eye, self._journal, task_env, self._outbox, tail)
        self._launcher = make_launcher(settings, task_env)
        self._who = resource("edge-worker", **{names.WORKER_NAME: settings.name})
        self._spans = Spans(settings.name, span_recorder(self._who, self._outbox), self._outbox.written)
        self._meters = Meters(self._who, self._outbox, settings.state_dir)
        self._site = Site(
            worker=settings.name,
            transport=self._transport,
            launcher=self._launcher,
            spans=self._spans,
            meters=self._meters,
            shipping=Shipping(self._transport, station.pace, self._spans),
            execution_api_url=station.execution_api_url,
            executors=station.executors,
            contact=station.contact.path,
            renews=station.renews,
            task_env=lambda: station.task_env,
            settings=lambda: station.settings,
            forget=self._journal.forget,
            changed=station.changed,
        )
        self._reload = Reload(station, sources, self._task_env, token, self._launcher, self._notifier)
        self._desk = Desk(station, self._reload)

    def _task_env(self, settings: Settings) -> dict[str, str]:
        return environment.for_tasks(os.environ, users_environment(settings), settings.name, self._receiver.url)

    async def start(self) -> None:
        """Begin to answer those on this machine, and to look at it."""
        self._station.turns |= {"logs": self._site.shipping.eye, **self._outbox.turns, "meters": self._meters.turn}
        self._outbox.start()
        self._export.start(self._outbox, self._who)
        await self._receiver.start()
        await self._desk.start()
        self._observe()
        signals.heed(self._station, self._reload.on_signal)
        text = "edge-worker %s starts, pid %d, server %s"
        log.info(text, __version__, os.getpid(), self._settings.server)

    async def loop(self) -> int:
        """Do the work; return the exit code."""
        return await Loop(self._station, self._transport, self._site, self._journal).run()

    async def stop(self) -> None:
        """Let go of everything; jobs that run go on."""
        self._notifier.say("STOPPING=1")
        for task in self._tasks:
            task.cancel()
        self._desk.close()
        try:
            async with asyncio.timeout(STOPPED_WITHIN):
                await self._close()
        except TimeoutError:
            log.warning("something does not let go within %.0f s; the daemon leaves all the same", STOPPED_WITHIN)
        self._journal.unlock()

    async def _close(self) -> None:
        await self._launcher.close()
        await self._site.shipping.close()
        self._receiver.close()
        await self._meters.close()
        await asyncio.to_thread(self._spans.close)
        await asyncio.to_thread(self._export.close)
        await asyncio.to_thread(self._outbox.close)
        await self._transport.close()

    def _observe(self) -> None:
        """Start what looks at this worker again and again."""
        station, launcher, users = self._station, self._launcher, self._users

        def interval() -> float:
            return station.pace().telemetry_interval

        orphans = Orphans(station, lambda: [*launcher.pids(), *(users.pids() if users is not None else ())])
        loops: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "meters": lambda: self._meters.run(interval, station.moment),
            "orphans": orphans.run,
            "guard": Guard(station).run,
            "ground": Ground(station, self._journal, self._desk).run,
            "notify": lambda: watch(station, self._notifier),
            "renewal": lambda: follow(self._interpreter, station, self._reload.asked, launcher.outdate),
        }
        if users is not None:
            station.turns["facts"] = users.turn
            loops["facts"] = lambda: users.run(interval, station.news.set)
        self._tasks = [asyncio.create_task(keep_up(name, loop), name=name) for name, loop in loops.items()]


def users_environment(settings: Settings) -> dict[str, str]:
    """Return what the user has for the environment of tasks. Raises BadSetting."""
    return environment.read_file(settings.task_env_file) if settings.task_env_file else {}


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
    loop.set_default_executor(Threads(2, thread_name_prefix="files"))
    resolvers = Threads(2, thread_name_prefix="names")

    async def resolve(host: Any, port: Any, **more: int) -> Any:
        return await loop.run_in_executor(resolvers, partial(socket.getaddrinfo, host, port, **more))

    # Without a name server each takes half a minute and more, and would hold up all else that needs a thread.
    loop.getaddrinfo = resolve  # type: ignore[method-assign]


class Threads(ThreadPoolExecutor):
    """Of which one may hang, on a disk or for a name: asyncio would wait for it at the end, without bound."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for none."""
        super().shutdown(wait=False, cancel_futures=True)


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


async def keep_up(name: str, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a loop beside the daemon's work. A defect in it ends neither that nor, for long, the loop itself."""
    while True:
        try:
            await loop()
        except Exception:
            log.critical("a defect ends %s; it begins again in %.0f s", name, AGAIN, exc_info=True)
            await asyncio.sleep(AGAIN)
        else:
            return


def make_launcher(settings: Settings, task_env: dict[str, str]) -> Launcher:
    """Return what starts jobs as the settings say."""
    if settings.launch == "interpreter":
        return InterpreterLauncher(settings.task_python, task_env)
    if not hasattr(os, "fork"):
        raise BadSetting("--launch zygote needs fork, which this system has not: use --launch interpreter")
    errors = settings.state_dir / "zygote.log"
    return ZygoteLauncher(settings.task_python, task_env, settings.zygote_idle, errors)
