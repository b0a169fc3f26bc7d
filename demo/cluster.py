"""One Airflow on this machine: its components as owned processes, with their logs in one folder."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil
import requests

from demo.airflow_api import AirflowApi
from demo.environment import MARKER, Secrets, bare, central, telemetry
from demo.process import Ended, Process, tail, with_environment
from demo.wait import NotSeen, wait_for

Value = TypeVar("Value")
EDGE_EXECUTOR = "edge_otel.executor.EdgeExecutor"
COMMAND_TIMEOUT = 180.0
START_TIMEOUT = 120.0


class Cluster:
    """A central site. Workers belong to it as well, so that ``stop`` ends everything."""

    def __init__(
        self,
        folder: Path,
        *,
        database: str,
        port: int,
        dags: Path,
        otlp: str | None,
        executor: str = EDGE_EXECUTOR,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.port = port
        self.dags = dags
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.marker = secrets.token_hex(8)
        self.base = bare(self.marker)
        self.keys = Secrets()
        settings = central(
            {**self.base, **telemetry(otlp)},
            home=folder / "airflow",
            dags=dags,
            database=database,
            port=port,
            executor=executor,
            keys=self.keys,
        )
        self.env = {**settings, **(options or {})}
        self.processes: dict[str, Process] = {}
        self.workers: dict[str, Process] = {}
        self.api = AirflowApi(self.url)

    @property
    def url(self) -> str:
        """Address of Airflow's API server and UI."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def edge_url(self) -> str:
        """Address that an edge worker is given."""
        return f"{self.url}/edge_worker"

    def airflow(self, *arguments: str, **options: str) -> str:
        """Run an ``airflow`` command to its end and return its standard output; ``options`` are further environment
        variables.

        :raises Ended: when it failed, with the end of its log
        """
        log = self.logs / f"airflow-{'-'.join(arguments[:2])}.log"
        with log.open("ab") as errors:
            done = subprocess.run(
                [sys.executable, "-m", "airflow", *arguments],
                env={**self.env, **options},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                timeout=COMMAND_TIMEOUT,
                check=False,
            )
            errors.write(done.stdout if done.returncode else b"")
        if done.returncode:
            raise Ended(f"airflow {' '.join(arguments)} failed; the end of {log}:\n{tail(log)}")
        return done.stdout.decode()

    def migrate(self) -> None:
        """Create Airflow's tables and ours."""
        self.airflow("db", "migrate")

    def _start(
        self, owned: dict[str, Process], name: str, command: Sequence[str | Path], env: Mapping[str, str]
    ) -> Process:
        if name in owned:
            raise ValueError(f"{name} runs already.")
        owned[name] = Process(name, command, log=self.logs / f"{name}.log", env=env)
        return owned[name]

    def start_worker(self, name: str, command: Sequence[str | Path], env: Mapping[str, str]) -> Process:
        """Start a worker under a name that no living one has."""
        return self._start(self.workers, name, command, env)

    def start_airflow(self, name: str, *arguments: str, **options: str) -> Process:
        """Start a lasting ``airflow`` command; ``options`` are further environment variables."""
        command = [sys.executable, "-m", "airflow", *arguments]
        named = {"OTEL_SERVICE_NAME": f"airflow-{name}"}
        return self._start(self.processes, name, command, {**self.env, **named, **options})

    def start_api_server(self, name: str = "api-server", port: int | None = None, **options: str) -> Process:
        """Start an API server; ``wait_for_api`` tells when it answers."""
        listen = ["--host", "127.0.0.1", "--port", str(port or self.port), "--workers", "1"]
        return self.start_airflow(name, "api-server", *listen, **options)

    def wait_for_api(self, progress: Callable[[float], None] | None = None, port: int | None = None) -> None:
        """Return when the API server answers that its database is healthy."""
        self.wait(lambda: healthy(port or self.port), "the API server to answer", START_TIMEOUT, progress, "api-server")

    def scrape(self) -> list[str]:
        """Return the lines that Prometheus would read."""
        answer = requests.get(f"{self.edge_url}/metrics", timeout=30)
        answer.raise_for_status()
        return answer.text.splitlines()

    def forget(self, name: str) -> Process:
        """Take a process off the list of those that must live, to end it in a way of one's own."""
        return self.workers.pop(name) if name in self.workers else self.processes.pop(name)

    def end(self, name: str) -> None:
        """Stop one component in order."""
        self.forget(name).stop()

    def check(self) -> None:
        """Do nothing while every component lives.

        :raises Ended: naming the first that does not, with the end of its log
        """
        for process in [*self.processes.values(), *self.workers.values()]:
            process.check()

    def wait(
        self,
        look: Callable[[], Value],
        what: str,
        timeout: float,
        progress: Callable[[float], None] | None = None,
        blame: str | None = None,
    ) -> Value:
        """Return the first truthy value of ``look``, while every component lives.

        :raises NotSeen: after ``timeout`` seconds, with the end of the log of the component ``blame``
        """

        def look_on() -> Value:
            self.check()
            return look()

        try:
            return wait_for(look_on, what, timeout=timeout, progress=progress)
        except NotSeen as late:
            if blame is None:
                raise
            log = self.logs / f"{blame}.log"
            raise NotSeen(f"{late} The end of {log}:\n{tail(log)}") from None

    def stop(self) -> list[str]:
        """Stop everything, workers before what they talk to; return what had to be killed because it was left over."""
        for owned in (self.workers, self.processes):
            for process in owned.values():
                process.terminate()
            for process in owned.values():
                process.stop()
            owned.clear()
        left = []
        for process in with_environment(MARKER, self.marker):
            with suppress(psutil.NoSuchProcess):
                left.append(f"{process.pid} {' '.join(process.cmdline())[:120]}")
                process.kill()
        self.api.close()
        return left


def healthy(port: int) -> bool:
    """Return whether an API server on this port answers that its database is healthy."""
    try:
        answer = requests.get(f"http://127.0.0.1:{port}/api/v2/monitor/health", timeout=10)
        return answer.ok and answer.json()["metadatabase"]["status"] == "healthy"
    except (requests.RequestException, ValueError, KeyError):
        return False
