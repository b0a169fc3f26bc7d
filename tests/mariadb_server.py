"""A real MariaDB of our own on a loopback port, from the programs that the machine has."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from pathlib import Path

import pymysql

from demo.process import Process, free_port
from demo.wait import wait_for


def find_mariadbd() -> str | None:
    """Return the path of the server program, which is often in no user's PATH."""
    return shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class MariaDB:
    """One running server whose files are below ``folder``."""

    def __init__(self, program: str, folder: Path) -> None:
        self._password = secrets.token_hex(16)
        self._port = free_port()
        data = folder / "data"
        grants = folder / "grants.sql"
        grants.write_text(
            f"CREATE USER edge@'127.0.0.1' IDENTIFIED BY '{self._password}';\n"
            "GRANT ALL ON *.* TO edge@'127.0.0.1' WITH GRANT OPTION;\n"
        )
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db", *self._as_root()],
            check=True,
            capture_output=True,
        )
        self.process = Process(
            "MariaDB",
            [program, "--no-defaults", f"--datadir={data}", *self._options(folder), f"--init-file={grants}"],
            log=folder / "mariadb.log",
        )
        try:
            wait_for(self._answers, "MariaDB to answer", timeout=60)
        except BaseException:
            self.stop()
            raise

    def _options(self, folder: Path) -> list[str]:
        listen = [f"--port={self._port}", "--bind-address=127.0.0.1", f"--socket={folder / 'socket'}"]
        lean = ["--skip-log-bin", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0"]
        return [*listen, *lean, *self._as_root()]

    @staticmethod
    def _as_root() -> list[str]:
        return ["--user=root"] if os.geteuid() == 0 else []

    def _connect(self) -> pymysql.connections.Connection[pymysql.cursors.Cursor]:
        return pymysql.connect(host="127.0.0.1", port=self._port, user="edge", password=self._password)

    def _answers(self) -> bool:
        self.process.check()
        try:
            self._connect().close()
        except pymysql.err.OperationalError:
            return False
        return True

    def new_database(self) -> str:
        """Create an empty database and return its SQLAlchemy URL for PyMySQL."""
        name = f"edge_{secrets.token_hex(6)}"
        with self._connect() as connection:
            connection.cursor().execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return f"mysql+pymysql://edge:{self._password}@127.0.0.1:{self._port}/{name}"

    def stop(self) -> None:
        """End it; open connections are closed."""
        self.process.stop()
