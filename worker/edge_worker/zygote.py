"""A process with Airflow's Task SDK loaded, which forks one supervisor per job: ``python -P zygote.py``.

Run by the task interpreter, in which edge_worker need not be installed: standard library and Airflow only.

It reads job folders as JSON lines from stdin and writes what becomes of them as JSON lines to stdout. When stdin
closes it goes as soon as its last child has ended: children never depend on the daemon. There are no threads here but
the SDK's, which knows of forks, so that a fork copies no lock that somebody holds.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

assert sys.platform != "win32", "where there is no fork there is no zygote"

OTEL_ON = "AIRFLOW__TRACES__OTEL_ON"

ORPHANS_WITHIN = 1.0
"""Seconds for one attempt to stop what is left: jobs that are to start wait for it."""

NEEDED = (
    "airflow.executors.base_executor",
    "airflow.sdk.execution_time.callback_supervisor",
    "airflow.sdk.execution_time.connection_test_supervisor",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.sdk.log",
)
"""What every job needs."""

USUAL = (
    "airflow.dag_processing.dagbag",
    "airflow.dag_processing.bundles.local",
    "airflow.sdk.definitions.decorators",
    "airflow.providers.standard.decorators.python",
    "airflow.providers.standard.operators.bash",
    "airflow.sdk.definitions.asset.metadata",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)
"""What nearly every task imports, where it is installed. Never plugins or DAGs: a job runs those itself."""


def load_certificates() -> None:
    """Have the Execution API client's TLS context made once; it reads all public certificates."""
    from airflow.sdk.api import client

    client.Client._get_ssl_context_cached(client.API_SSL_CA_FILE_PATH, client.API_SSL_CERT_PATH)


def start_tracing() -> None:
    """Make Airflow's tracer provider for all jobs. In each fork the SDK starts the thread of its own that exports.

    The HTTP client's first use is had here too, by a request that nobody takes: it is half the cost of an export.
    """
    import requests
    from airflow.configuration import conf
    from airflow.settings import configure_otel

    configure_otel(conf)
    with socket.socket() as nobody, contextlib.suppress(requests.RequestException):
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        requests.post(url, b"", proxies={"no_proxy": "127.0.0.1"}, timeout=1)


def load_task_run() -> ModuleType:
    """Return the module beside this file, which is not on the path."""
    spec = importlib.util.spec_from_file_location("edge_task_run", Path(__file__).with_name("task_run.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


def preload() -> None:
    """Import all that a supervisor and a task runner need."""
    mine = os.environ.get(OTEL_ON)
    # Airflow makes the provider when it is imported, and fails if it cannot. Whatever is wrong with tracing, tasks run.
    os.environ[OTEL_ON] = "False"
    try:
        for name in NEEDED:
            importlib.import_module(name)
        for name in USUAL:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        with contextlib.suppress(Exception):
            load_certificates()
    finally:
        if mine is None:
            del os.environ[OTEL_ON]
        else:
            os.environ[OTEL_ON] = mine


class Zygote:
    """Forks children and tells what becomes of them."""

    def __init__(self, orders: int, answers: int, task_run: ModuleType) -> None:
        self.orders = orders
        self.answers = answers
        self.task_run = task_run
        self.children: dict[int, Path] = {}
        self.own = frozenset(task_run.leftovers.children())
        """Processes that an import has started."""
        self.ended: dict[str, tuple[int, float]] = {}
        """Folders whose supervisors have ended: with which code, and until when its telling may wait."""
        self.open = True
        self.buffer = b""
        self.wake_read, self.wake_write = os.pipe()
        for descriptor in (self.wake_read, self.wake_write, orders):
            os.set_blocking(descriptor, False)

    def tell(self, **what: Any) -> None:
        """Answer the daemon; one that is gone reads the folders instead."""
        with contextlib.suppress(OSError):
            os.write(self.answers, json.dumps(what).encode() + b"\n")

    def serve(self) -> None:
        """Fork, reap and answer until there is nothing left to do."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        selector = selectors.DefaultSelector()
        selector.register(self.wake_read, selectors.EVENT_READ)
        selector.register(self.orders, selectors.EVENT_READ)
        self.tell(ready=True)
        while self.open or self.children or self.ended:
            ready = selector.select(self.task_run.leftovers.KILLED_WITHIN if self.ended else None)
            with contextlib.suppress(BlockingIOError):
                os.read(self.wake_read, 4096)
            self.reap()
            self.tell_ended(waiting=self.kill_orphans())
            if self.open and any(key.fd == self.orders for key, _ in ready):
                self.open = self.obey()
                if not self.open:
                    selector.unregister(self.orders)

    def obey(self) -> bool:
        """Start the jobs that were asked for; return whether the daemon is still there."""
        try:
            data = os.read(self.orders, 65536)
        except BlockingIOError:
            return True
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            folder = Path(json.loads(line)["folder"])
            try:
                pid = os.fork()
            except OSError as error:
                self.tell(failed=str(folder), error=f"the zygote cannot fork: {error.strerror}", refused=True)
                continue
            if pid == 0:
                self.child(folder)
            self.children[pid] = folder
        return bool(data)

    def child(self, folder: Path) -> NoReturn:
        """Be the supervisor of one job, in a session of its own; never return."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.close(output)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            try:
                self.task_run.claim(folder)
            except self.task_run.Claimed:
                self.tell(failed=str(folder), error="a process has run in this folder already")
                os._exit(1)
            self.tell(started=str(folder))
            # Else a task's own children would hold the pipes, and neither side would see the other's end.
            for descriptor in (self.orders, self.answers, self.wake_read, self.wake_write):
                os.close(descriptor)
            code = self.task_run.run(folder)
        except BaseException:  # noqa: BLE001 - a child must never fall into its parent's loop
            with contextlib.suppress(Exception):
                traceback.print_exc()
        finally:
            os._exit(code & 0xFF)

    def reap(self) -> None:
        """Tell of children that have ended, and judge those that could not do so themselves."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            folder = self.children.pop(pid, None)
            if folder is None:
                continue
            code = os.waitstatus_to_exitcode(status)
            result = folder / "result.json"
            judged = os.path.exists(result)  # noqa: PTH110 - unlike Path.exists, it never raises
            if not judged and self.task_run.claimed_by(folder) == pid:
                found = {"exit_code": code, "error": None, "time": time.time(), **self.task_run.used(usage)}
                with contextlib.suppress(OSError):
                    self.task_run.write(result, found)
            self.ended[str(folder)] = code, time.monotonic() + self.task_run.leftovers.KILLED_WITHIN

    def kill_orphans(self) -> bool:
        """Kill what supervisors have left to this process; return whether there was anything.

        Those that were killed leave all that they had. Without its supervisor a task would go on unseen, beside the
        next try of it.
        """
        return bool(self.task_run.leftovers.kill(lambda pid: pid in self.children or pid in self.own, ORPHANS_WITHIN))

    def tell_ended(self, waiting: bool) -> None:
        """Tell which jobs have ended; while ``waiting`` for what is left, only those that were to be told by now."""
        now = time.monotonic()
        told = {folder: code for folder, (code, until) in self.ended.items() if not waiting or now >= until}
        for folder, code in told.items():
            self.tell(ended=folder, exit_code=code)
            del self.ended[folder]


def main() -> None:
    """Load Airflow and serve."""
    answers = os.dup(1)
    orders = os.dup(0)
    # Whatever Airflow or a plugin prints while it is imported goes to the error file, not into the answers.
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # A terminal's Ctrl-C is for the daemon, which decides what happens to its jobs.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    task_run = load_task_run()
    task_run.leftovers.adopt_orphans()
    preload()
    with contextlib.suppress(ImportError):
        from setproctitle import setproctitle

        setproctitle("edge-worker zygote")
    zygote = Zygote(orders, answers, task_run)
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate()[1:])
        sys.stderr.write(f"threads were started on import and will not exist in jobs: {names}\n")
    if OTEL_ON in os.environ:
        with contextlib.suppress(Exception):
            start_tracing()
    # Objects that exist now are never collected in a child, so their pages stay shared.
    gc.collect()
    gc.freeze()
    zygote.serve()


if __name__ == "__main__":
    main()
