"""Where the commands of the docs are run: a real central site, and workers as each command needs them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from airflow_commands import run_here
from handbook import ROOT

from acceptance.rig import LONG, Rig
from demo.environment import site
from demo.process import Process, free_port

PROGRAM = Path(sys.executable).with_name("edge-worker")
COLD = 60.0
"""Seconds for what takes a few."""


class Stage:
    """The scene of one page."""

    def __init__(self, rig: Rig, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.rig, self.folder, self._capsys = rig, folder, capsys
        self.state_dir = folder / "state"
        self.token_file = folder / "token"
        self.port = free_port()
        self.exports: dict[str, str] = {}
        self.spare = self._create("spare")["id"]
        """A token that no worker has, to be rotated and revoked."""
        self.new_token = self._create("site-*")["token"]
        """The one that was created last."""
        self.token_file.write_text(self.new_token)
        self.token_file.chmod(0o600)
        (folder / "etc" / "systemd" / "system").mkdir(parents=True)
        self.places = self._places()

    def _places(self) -> list[tuple[str, str]]:
        """What stands in the docs for something of the reader's, and what it is here."""
        folder, cluster = self.folder, self.rig.cluster
        return [
            (r"https://central\.example|http://API-SERVER:8080", cluster.url),
            (r"(/opt/\S+/bin/)?edge-worker(?= (start|status|stop|drain|maintenance|reload)\b)", str(PROGRAM)),
            (r"/opt/airflow/bin/python", sys.executable),
            (r"/opt/edge-worker", f"{folder}/edge-worker"),
            (r"/var/lib/edge-worker|\bedge-state\b|\bDIR\b", str(self.state_dir)),
            (r"/etc/", f"{folder}/etc/"),
            (r'"\$HOME/edge-token"', f"{folder}/edge-token"),
            (r"(?<=--token-file )token|(?<=> )token|(?<=-m 600 )token", str(self.token_file)),
            (r"\bworker/systemd/", f"{ROOT}/worker/systemd/"),
            (r"\bWORKER\b|\bNAME\b", "site-1"),
            (r"\bQUEUE\b", "default"),
            (r"\bTEXT\b", "why"),
            (r"\bTOKEN_ID\b", self.spare),
            (r"0\.0\.0\.0", "127.0.0.1"),
            (r"\b8790\b", str(self.port)),
        ]

    def placed(self, command: str) -> list[str]:
        """Return the words of a command of the docs as they are typed here."""
        for pattern, here in self.places:
            command = re.sub(pattern, lambda _, here=here: here, command)
        return shlex.split(command)

    # Workers.

    def running(self) -> list[str]:
        """Return the names of the workers that run."""
        return list(self.rig.cluster.workers)

    def start(self, name: str, words: list[str], **options: str) -> None:
        """Start a worker, in the place of one of its name, and return when it is connected; ``options`` are further
        environment variables."""
        self.stop(name)
        env = site(self.rig.cluster.base, home=self.folder / name, dags=self.rig.cluster.dags)
        self.rig.cluster.start_worker(name, words, {**env, **options})
        self.rig.wait_worker(name, "idle", "maintenance mode")

    def connect(self, *names: str) -> None:
        """Start those that do not run, the first of all in the folder that the docs name."""
        for name in names:
            if name not in self.running():
                folder = self.state_dir if not self.running() else self.folder / f"state-{name}"
                words = [PROGRAM, "start", "--server", self.rig.cluster.edge_url, "--token-file", self.token_file]
                words += ["--name", name, "--state-dir", folder, "--task-python", sys.executable]
                self.start(name, [str(word) for word in words])

    def stop(self, *names: str) -> None:
        """Stop these workers in order, as far as they run."""
        for name in set(names) & set(self.running()):
            self.rig.cluster.end(name)
            self.rig.wait_worker(name, "offline", "offline maintenance")

    @contextmanager
    def leaving(self, *names: str) -> Iterator[None]:
        """Let these workers leave, and see them gone."""
        processes = [self.rig.cluster.forget(name) for name in names if name in self.running()]
        assert processes, f"of {names} none runs"
        try:
            yield
            assert [process.wait(COLD) for process in processes] == [0] * len(processes)
        finally:
            for process in processes:
                process.stop()

    # Commands.

    def airflow(self, words: list[str]) -> str:
        """Run an ``airflow`` command by its own parser, here: a process for each takes seconds."""
        ran = run_here(words[1:], self._capsys)
        assert ran.code == 0, f"{shlex.join(words)}: {ran.code}\n{ran.out}\n{ran.err}"
        return str(ran.out)

    def process(self, words: list[str], given: str | None = None) -> str:
        """Run a program of the site to its end."""
        env = site(self.rig.cluster.base, home=self.folder, dags=self.rig.cluster.dags)
        ran = subprocess.run(words, env=env, input=given, capture_output=True, text=True, timeout=LONG, check=False)
        assert ran.returncode == 0, f"{shlex.join(words)}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def _create(self, worker: str) -> dict[str, str]:
        """Return a new token."""
        made = self.airflow(["airflow", "edge", "token", "create", "--worker", worker, "--output", "json"])
        token: dict[str, str] = json.loads(made)[0]
        return token

    def serve(self, words: list[str]) -> None:
        """Run a server until it answers."""
        log = self.folder / "server.log"
        server = Process("server", [sys.executable, "-m", *words], log=log, env=self.rig.cluster.env)
        try:

            def answers() -> bool:
                server.check()
                try:
                    return requests.get(f"http://127.0.0.1:{self.port}/edge_worker/readyz", timeout=5).ok
                except requests.ConnectionError:
                    return False

            self.rig.wait(answers, "the server to answer")
        finally:
            server.stop()


def help_of(*program: str) -> str:
    """Return what a program of the system says of its options; nothing where it is not installed."""
    try:
        ran = subprocess.run([*program, "--help"], capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        return ""
    return ran.stdout + ran.stderr


def options_in(words: list[str]) -> list[str]:
    """Return the long options among the words of a command."""
    return [word.partition("=")[0] for word in words if word.startswith("--")]
