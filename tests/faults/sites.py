"""A remote site under faults: a disk and a network of its own, and a daemon that is started again when it ends."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import edge_worker
import psutil

import edge_otel
from demo.environment import site as site_environment
from demo.process import Process, with_environment
from demo.wait import wait_for
from tests.faults import namespace
from tests.faults.central import Central
from tests.faults.certificates import Authority
from tests.faults.judgement import Try
from tests.faults.link import Link, Links

DISK = "96m"
"""Size of a site's disk."""
LOOK = 0.05
"""Seconds between looks for log files; no task is as short."""
RESTART = 0.5
"""Seconds until a daemon that has ended is started again."""
MEMORY, PROCESSES = 1200, 150
"""What a job may use: MiB and processes."""
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
IN_ORDER = (0, 5)


class Site:
    """One site. ``state`` is the daemon's folder; ``kept`` has a second name for each log file that appears there."""

    def __init__(self, number: int, central: Central, authority: Authority, links: Links, isolated: bool) -> None:
        self.number, self.name, self.central = number, f"site-{number}", central
        self.folder = central.cluster.folder / self.name
        self.disk = self.folder / "disk"
        self.disk.mkdir(parents=True)
        self.mounted = isolated
        if isolated:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", self.disk], check=True)
        self.state, self.kept = self.disk / "state", self.disk / "kept"
        self.kept.mkdir()
        self.namespace = namespace.Namespace(f"edge-faults-{os.getpid()}-{number}") if isolated else None
        listener = self.namespace.listen() if self.namespace else socket.create_server(("127.0.0.1", 0))
        self.link = Link(links, listener, central.cluster.port, authority.certificate)
        self.token = self.folder / "token"
        self.token.touch(0o600)
        self.token.write_text(central.new_token(self.name))
        self.clock = self.folder / "clock"
        self.set_clock(0)
        self.clock_is_ours = False
        """Whether the next daemon's clock is the one that ``set_clock`` sets."""
        self._without_clock = self.folder / "task.env"
        self._without_clock.write_text("LD_PRELOAD=\n")
        self.run_id = ""
        """The run whose tasks are here at present."""
        self.restarts = 0
        """Daemons that ended without being asked to."""
        self._upgraded: Path | None = None
        self._authority = authority
        self._daemon: Process | None = None
        self._wanted = threading.Event()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=work, name=self.name) for work in (self._keep, self._watch)]
        for thread in self._threads:
            thread.start()

    @property
    def daemon(self) -> psutil.Process:
        """The daemon's process."""
        assert self._daemon is not None
        return psutil.Process(self._daemon.pid)

    def start(self) -> None:
        """Have a daemon run from now on."""
        with self._lock:
            self._start()
        self._wanted.set()

    def kill(self, outage: float = 0.0) -> None:
        """Kill the daemon alone, and start it again."""
        with self.down():
            time.sleep(outage)

    def down(self) -> Down:
        """Return a context in which the daemon is killed, and stays so."""
        return Down(self)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a local command to the daemon."""
        program = [*self._program(), *arguments, "--state-dir", str(self.state)]
        return subprocess.run(program, env=self._env(), capture_output=True, text=True, timeout=60, check=False)

    def status(self) -> dict[str, Any]:
        """Return what the daemon says of itself; empty where none answers."""
        asked = self.command("status", "--output", "json")
        answer: dict[str, Any] = json.loads(asked.stdout) if asked.stdout.startswith("{") else {}
        return answer

    def wait_back(self, within: float) -> None:
        """Return when the daemon is registered and takes jobs. Raises NotSeen."""

        def back() -> bool:
            answer = self.status()
            return bool(answer.get("registered") and not answer["draining"] and not answer["maintenance"])

        wait_for(back, f"{self.name} to be back", timeout=within)

    def jobs(self) -> list[tuple[Try, Path]]:
        """Return the run's tries that are here and have not ended, and their folders."""
        found = []
        for file in self.state.glob("jobs/*/offer.json"):
            with suppress(OSError, ValueError):
                offer = json.loads(file.read_text())
                if offer["run_id"] == self.run_id and not (file.parent / "result.json").exists():
                    found.append(((offer["task_id"], offer["map_index"], offer["try_number"]), file.parent))
        return found

    def supervisors(self) -> list[tuple[Try, psutil.Process]]:
        """Return the run's tries that run, and their supervisors."""
        found = []
        for one, folder in self.jobs():
            with suppress(OSError, ValueError, psutil.Error):
                found.append((one, psutil.Process(json.loads((folder / "process.json").read_text())["pid"])))
        return [(one, process) for one, process in found if self.of_site(process)]

    def tasks(self) -> list[tuple[Try, psutil.Process]]:
        """Return the run's tries that run, and the tasks' own processes."""
        found = []
        for one, supervisor in self.supervisors():
            with suppress(psutil.Error):
                found += [(one, child) for child in supervisor.children()]
        return [(one, process) for one, process in found if self.of_site(process)]

    def stopped(self) -> set[Try]:
        """Return the run's tries of which the daemon's log says that they were asked to end."""
        found = set()
        about = "airflow.task_instance"
        for line in (self.folder / "daemon.log").read_text().splitlines():
            if ": SIGTERM: " in line and (said := json.loads(line))["airflow.dag_run.run_id"] == self.run_id:
                found.add((said["airflow.task_id"], said[f"{about}.map_index"], said[f"{about}.try_number"]))
        return found

    def of_site(self, process: psutil.Process) -> bool:
        """Return whether a process is one of this site, and lives."""
        try:
            mine = process.environ().get("AIRFLOW_HOME") == str(self.folder / "airflow")
            return mine and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def zygote(self) -> psutil.Process | None:
        """Return the daemon's zygote, if there is one."""
        with suppress(psutil.Error):
            for child in self.daemon.children():
                if "zygote" in " ".join(child.cmdline()):
                    return child
        return None

    def everything(self) -> list[psutil.Process]:
        """Return all processes of this site, the daemon among them."""
        return with_environment("AIRFLOW_HOME", str(self.folder / "airflow"))

    def leftovers(self) -> list[str]:
        """Return the processes of this site, in words, that are neither its daemon nor the daemon's zygote."""
        known = {process.pid for process in (self.daemon, self.zygote()) if process is not None}
        found = []
        for process in self.everything():
            with suppress(psutil.Error):
                if process.pid not in known:
                    found.append(f"{process.pid} {' '.join(process.cmdline())[:80]}")
        return found

    def set_clock(self, seconds: int) -> None:
        """Set the daemon's clock off by this much, in seconds."""
        new = self.clock.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self.clock)

    def upgrade(self) -> None:
        """Let the next daemon be one of another version."""
        folder = self.folder / f"upgraded-{time.monotonic_ns()}"
        for package in (edge_otel, edge_worker):
            source = Path(package.__file__ or "").parent
            shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        about = folder / "edge_otel" / "__init__.py"
        about.write_text(about.read_text().replace(edge_otel.__version__, f"{edge_otel.__version__}.post1"))
        self._upgraded = folder

    def stop(self) -> None:
        """End everything of the site."""
        self._wanted.clear()
        with self._lock:
            if self._daemon is not None:
                self._daemon.stop()
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for process in self.everything():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.link.close()
        if self.namespace is not None:
            self.namespace.close()
        if self.mounted:
            subprocess.run(["umount", "-l", self.disk], check=True)

    def _program(self) -> list[str]:
        if self._upgraded is not None:
            return [sys.executable, "-m", "edge_worker"]
        return [str(Path(sys.executable).with_name("edge-worker"))]

    def _env(self) -> dict[str, str]:
        base = self.central.cluster.base
        env = site_environment(base, home=self.folder / "airflow", dags=self.central.cluster.dags)
        env["AIRFLOW__API__SSL_CERT"] = str(self._authority.file)
        if self._upgraded is not None:
            env["PYTHONPATH"] = str(self._upgraded)
        return env

    def _start(self) -> None:
        at = f"https://127.0.0.1:{self.link.port}"
        options = {
            "server": f"{at}/edge_worker",
            "execution-api-url": f"{at}/execution/",
            "ca-file": self._authority.file,
            "token-file": self.token,
            "name": self.name,
            "queues": self.name,
            "concurrency": 8,
            "state-dir": self.state,
            "task-python": sys.executable,
            "kill-grace": 3,
            "job-memory": MEMORY,
            "job-processes": PROCESSES,
        }
        command = [*(self.namespace.enter if self.namespace else []), *self._program(), "start"]
        command += [text for name, value in options.items() for text in (f"--{name}", str(value))]
        env = self._env()
        if self.clock_is_ours:
            env |= {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(self.clock)}
            env |= {"FAKETIME_CACHE_DURATION": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
            # The daemon's clock alone: Python's sleep, of which tasks make use, fails with it.
            command += ["--task-env-file", str(self._without_clock)]
        self._daemon = Process(self.name, command, log=self.folder / "daemon.log", env=env)

    def _keep(self) -> None:
        while not self._ended.wait(RESTART):
            with self._lock:
                if self._wanted.is_set() and self._daemon is not None and self._daemon.exit_code is not None:
                    self.restarts += self._daemon.exit_code not in IN_ORDER
                    self._start()

    def _watch(self) -> None:
        """Give each log file of a job a second name, so that it is there when the job's folder is gone."""
        while not self._ended.wait(LOOK):
            # What is looked at may vanish at any time, and there may be no byte free.
            with suppress(OSError):
                for file in self.state.glob("jobs/*/logs/**/*.log"):
                    self._keep_log(file)

    def _keep_log(self, file: Path) -> None:
        job, _, path = str(file.relative_to(self.state / "jobs")).partition("/logs/")
        # One that is made anew is another file.
        name = self.kept / job / str(file.stat().st_ino) / path
        if not name.exists():
            name.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, name)

    def logs(self, run_id: str) -> dict[str, list[Path]]:
        """Return the files that were kept of each log of a run, in the order in which they were begun."""
        found: dict[str, list[Path]] = {}
        for file in sorted(self.kept.glob(f"*/*/**/run_id={run_id}/**/*.log"), key=lambda f: f.parent.stat().st_ctime):
            path = Path(*file.relative_to(self.kept).parts[2:])
            found.setdefault(str(path), []).append(file)
        return found


class Down:
    """A time in which a site's daemon is down: it is killed at the beginning, and started at the end."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def __enter__(self) -> None:
        self._site._wanted.clear()
        with self._site._lock:
            assert self._site._daemon is not None
            self._site._daemon.kill_alone()

    def __exit__(self, *_: object) -> None:
        self._site.start()
