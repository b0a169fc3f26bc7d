"""Edge API servers as real processes, which can be killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import requests
from replica_process import HANDSHAKES_AT_A_TIME

from demo.process import free_port, tail
from demo.wait import wait_for

HERE = Path(__file__).parent
PATIENCE = 30.0


class Replica:
    """One server process."""

    def __init__(self, pid: int, port: int, log: Path) -> None:
        self.pid = pid
        self.port = port
        self.log = log
        self.url = f"http://127.0.0.1:{port}"

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return psutil.pid_exists(self.pid)

    def ready(self) -> bool:
        """Return whether workers can connect."""
        assert self.alive, f"the server has ended; the end of {self.log}:\n{tail(self.log)}"
        try:
            return requests.get(f"{self.url}/readyz", timeout=10, proxies={"http": ""}).ok
        except requests.ConnectionError:
            return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if there is somebody to get it."""
        if self.alive:
            os.kill(self.pid, number)

    def most_handshakes(self) -> int:
        """Return how many workers asked the database at a time whether they may connect, at most."""
        return max(map(int, re.findall(rf"{HANDSHAKES_AT_A_TIME}(\d+)", self.log.read_text())), default=0)

    def kill(self) -> None:
        """Kill it at once."""
        self.signal(signal.SIGKILL)
        self.wait_ended()

    def stop(self) -> None:
        """Ask it to stop, and wait for its end."""
        self.signal(signal.SIGTERM)
        self.wait_ended()

    def wait_ended(self) -> None:
        """Return when the process is no more."""
        wait_for(lambda: not self.alive, "the server to end", timeout=PATIENCE, pause=0.005)


class Replicas:
    """Starts servers in a fraction of the time that Python needs to import them."""

    def __init__(self, packages: Path | None = None) -> None:
        """``packages``: a folder with more packages."""
        self._logs = tempfile.TemporaryDirectory(prefix="edge-replicas-")
        self._count = 0
        self._forker = subprocess.Popen(
            [sys.executable, HERE / "replica_process.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Each server is told its own database; that of an earlier test may be one that Airflow has no driver for.
            env={name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__DATABASE__")}
            | {
                "PYTHONPATH": os.pathsep.join(map(str, filter(None, [HERE.parent.parent, HERE.parent, packages]))),
                # Those that are killed leave files there.
                "TMPDIR": self._logs.name,
            },
        )
        self._ready = False

    def wait_ready(self) -> None:
        """Return when it can start servers."""
        if not self._ready:
            assert self._answer() == "ready"
            self._ready = True

    def _answer(self) -> str:
        assert self._forker.stdout is not None
        return self._forker.stdout.readline().strip()

    def start(
        self,
        database_url: str,
        *,
        port: int | None = None,
        dies: str | None = None,
        slow: bool = False,
        logs: Path | None = None,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Replica:
        """Start a server with these options of ``[edge]``; ``dies``: the step at which it kills itself; ``slow``: all
        that it asks of the database takes a while; ``logs``: where it writes the logs of tasks; ``env``: more of
        the environment."""
        port = port or free_port()
        env = dict(env or {}) | {f"AIRFLOW__EDGE__{name.upper()}": str(value) for name, value in options.items()}
        replica = self._fork(database_url, env, port=port, logs=logs, dies=dies, slow=slow)
        wait_for(replica.ready, "the server to be ready", timeout=PATIENCE, pause=0.02)
        return replica

    def read(self, database_url: str, task_instance_id: str, *, logs: Path, env: Mapping[str, str]) -> str:
        """Return what Airflow's own reader shows of a task's log where ``logs`` is the log folder, line by line."""
        reader = self._fork(database_url, env, logs=logs, reads=task_instance_id)
        reader.wait_ended()
        return reader.log.read_text()

    def _fork(
        self,
        database_url: str,
        env: Mapping[str, str],
        *,
        logs: Path | None,
        port: int = 0,
        dies: str | None = None,
        slow: bool = False,
        reads: str | None = None,
    ) -> Replica:
        self.wait_ready()
        self._count += 1
        log = Path(self._logs.name) / f"{self._count}.log"
        of_database = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url,
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(logs or self._logs.name),
        }
        assert self._forker.stdin is not None
        order = {
            "port": port,
            "log": str(log),
            "env": {**env, **of_database},
            "dies": dies,
            "slow": slow,
            "reads": reads,
        }
        self._forker.stdin.write(json.dumps(order) + "\n")
        self._forker.stdin.flush()
        return Replica(int(self._answer()), port, log)

    def stop(self) -> None:
        """Kill all servers."""
        assert self._forker.stdin is not None
        assert self._forker.stdout is not None
        self._forker.stdin.close()
        self._forker.wait(PATIENCE)
        self._forker.stdout.close()
        self._logs.cleanup()
