"""An edge worker beside a cluster: its token, its own state folder, and nothing of the central site's secrets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from demo.cluster import Cluster
from demo.environment import site
from demo.process import Process

DRAIN = 25.0
"""Seconds that a stopping worker may take to finish its jobs."""


def create_token(cluster: Cluster, worker: str, *options: str) -> str:
    """Return a new worker token, made by the command that an administrator uses."""
    printed = cluster.airflow("edge", "token", "create", "--worker", worker, "--output", "json", *options)
    answer = json.loads(printed[min(i for i in (printed.find("{"), printed.find("[")) if i >= 0) :])
    made: dict[str, str] = answer[0] if isinstance(answer, list) else answer
    return made["token"]


class EdgeWorker:
    """One remote site: a folder with a token, and a daemon that may be started again and again."""

    def __init__(
        self, cluster: Cluster, name: str, *, token: str, queues: str = "default", concurrency: int = 4
    ) -> None:
        self.name = name
        self.folder = cluster.folder / "sites" / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state_folder = self.folder / "state"
        self._cluster = cluster
        self._arguments = ["--queues", queues, "--concurrency", str(concurrency)]
        self._token_file = self.folder / "token"
        self._token_file.touch(mode=0o600)
        self._token_file.write_text(token)
        self.home = str(self.folder / "airflow")
        self._env = site(cluster.base, home=self.folder / "airflow", dags=cluster.dags)

    @property
    def program(self) -> Path:
        """Path of the ``edge-worker`` command."""
        return Path(sys.executable).with_name("edge-worker")

    def start(self, *options: str, env: dict[str, str] | None = None) -> Process:
        """Start the daemon."""
        command: list[str | Path] = [self.program, "start", "--server", self._cluster.edge_url]
        command += ["--token-file", self._token_file, "--name", self.name, *self._arguments]
        command += ["--state-dir", self.state_folder, "--task-python", sys.executable, *options]
        return self._cluster.start_worker(self.name, command, {**self._env, **(env or {})})

    def status(self) -> dict[str, Any]:
        """Return what the daemon says of itself; empty while none answers."""
        command = self.command("status", "--output", "json")
        asked = subprocess.run(command, env=self._env, capture_output=True, timeout=60, check=False)
        answer: dict[str, Any] = json.loads(asked.stdout) if asked.returncode == 0 else {}
        return answer

    def command(self, *arguments: str) -> list[str | Path]:
        """Return a local command to the running daemon, such as ``drain``."""
        return [self.program, *arguments, "--state-dir", self.state_folder]
