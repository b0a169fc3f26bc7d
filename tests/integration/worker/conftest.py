"""A fake central site, and real daemons against it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from edge_worker import processes
from edge_worker.journal import Started
from fake_server import FakeCentral, FakeJob

STUB = Path(__file__).with_name("stub_python.py")


class Daemon:
    """One ``edge-worker start``, whose log is a file."""

    defect: str | None = None
    """What a test has made it raise, in the traceback's words: no other may be in its log."""

    def __init__(
        self,
        central: FakeCentral,
        folder: Path,
        options: dict[str, str | None],
        env: dict[str, str],
        by: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.log = folder / f"daemon-{len(list(folder.glob('daemon-*')))}.log"
        token = folder / "token"
        if not token.exists():
            token.write_text(central.token + "\n")
            token.chmod(0o600)
        chosen = {
            "server": central.url,
            "token-file": str(token),
            "name": "site-1",
            "state-dir": str(self.state_dir),
            "task-python": str(stub_interpreter(folder)),
            "launch": "interpreter",
            "channel-retry": "0.5",
            **options,
        }
        arguments = [part for name, value in chosen.items() if value is not None for part in (f"--{name}", value)]
        clean = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("EDGE_WORKER_", "OTEL_", "AIRFLOW__"))
        }
        # The code under test may itself be found by it.
        paths = [e["PYTHONPATH"] for e in (env, clean) if e.get("PYTHONPATH")]
        clean |= {"PYTHONWARNINGS": "error", **env, **({"PYTHONPATH": os.pathsep.join(paths)} if paths else {})}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*by, sys.executable, "-m", "edge_worker", "start", *arguments],
                env=clean,
                stdout=output,
                stderr=output,
            )
        self.pid = self.process.pid

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def tracebacks(self) -> list[str]:
        """The lines of its log that show an exception which no test has made."""
        lines = [line for line in self.said.splitlines() if "Traceback" in line]
        if self.defect is None:
            return lines
        # One that comes of it, or of which it comes, is another.
        return [line for line in lines if not line.endswith(f'\\n{self.defect}"}}') or line.count("Traceback") > 1]

    def exit_code(self) -> int | None:
        return self.process.poll()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "edge_worker", *arguments, "--state-dir", str(self.state_dir)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def status(self) -> dict[str, Any]:
        """What the daemon tells of itself."""
        done = self.command("status", "--output", "json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def folders(self) -> list[Path]:
        jobs = self.state_dir / "jobs"
        return sorted(jobs.iterdir()) if jobs.exists() else []


def stub_interpreter(folder: Path) -> Path:
    path = folder / "stub-python"
    if not path.exists():
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -S -P {STUB} "$@"\n')
        path.chmod(0o755)
    return path


def workload(do: str, **more: Any) -> dict[str, Any]:
    """A workload for the stub interpreter."""
    return {"type": "Stub", "token": "workload-token-secret", "log_path": "dag_id=d/attempt=1.log", "do": do, **more}


@pytest.fixture
def central() -> Iterator[FakeCentral]:
    server = FakeCentral()
    yield server
    server.close()


Start = Callable[..., Daemon]


@pytest.fixture(params=["channel", "polling"])
def transport(request: pytest.FixtureRequest) -> str:
    """By which daemons talk; a test that is about one of them is parametrised with that."""
    return str(request.param)


@pytest.fixture
def start(central: FakeCentral, tmp_path: Path, transport: str) -> Iterator[Start]:
    """Start a daemon; options are its flags with dashes as underscores, None leaves one out."""
    daemons: list[Daemon] = []

    def begin(
        env: dict[str, str] | None = None, registered: bool = True, by: tuple[str, ...] = (), **options: Any
    ) -> Daemon:
        chosen = {"transport": transport, **options}
        flags = {name.replace("_", "-"): None if value is None else str(value) for name, value in chosen.items()}
        daemon = Daemon(central, tmp_path, flags, env or {}, by)
        daemons.append(daemon)
        if registered:
            seen = len(central.reports)
            central.wait_for(lambda: len(central.reports) > seen or daemon.exit_code() is not None)
            assert daemon.exit_code() is None, daemon.said
        return daemon

    yield begin
    for daemon in daemons:
        end(daemon)
    for daemon in daemons:
        assert not daemon.tracebacks, daemon.said


def end(daemon: Daemon) -> None:
    """End a daemon and what its jobs left behind, by id."""
    left: list[psutil.Process] = []
    if daemon.exit_code() is None:
        left = psutil.Process(daemon.pid).children(recursive=True)
        daemon.process.kill()
        daemon.process.wait(10)
    # Only now: a living daemon removes folders while one looks.
    for folder in daemon.folders():
        try:
            started = Started(**json.loads((folder / "process.json").read_text()))
        except FileNotFoundError:
            continue
        if processes.identity(started.pid) == started.identity:
            left.append(psutil.Process(started.pid))
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()


def gone(process: psutil.Process) -> bool:
    """The process has ended, whether it was waited for or not."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def finished(job: FakeJob) -> Callable[[], bool]:
    """The job has ended and its log is complete and right."""
    return lambda: job.end is not None and job.log_complete
