"""``airflow edge`` as administrators type it: in a process of its own, or here by Airflow's own parser."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from demo.environment import Secrets, bare, central


def new_site(folder: Path) -> dict[str, str]:
    """Migrate a SQLite database in this folder, and return the environment of the commands."""
    env = central(
        bare("cli"),
        home=folder,
        dags=folder,
        database=f"sqlite:///{folder}/airflow.db",
        port=1,
        executor="edge_otel.executor.EdgeExecutor",
        keys=Secrets(),
    )
    env["COLUMNS"] = "250"
    ran = airflow(env, "db", "migrate")
    assert ran.returncode == 0, ran.stderr
    return env


def airflow(env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``airflow`` in a process of its own."""
    command = [sys.executable, "-m", "airflow", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def run_here(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> SimpleNamespace:
    """Run an ``airflow`` command in this process; return its exit code or last words, and what it printed."""
    from airflow.cli.cli_parser import get_parser

    code: Any = 0
    try:
        given = get_parser().parse_args(list(arguments))
        given.func(given)
    except SystemExit as ended:
        code = ended.code
    printed = capsys.readouterr()
    return SimpleNamespace(code=code, out=printed.out, err=printed.err)


def well(ran: SimpleNamespace) -> Any:
    """Return what a command printed: as JSON where it is that."""
    assert ran.code == 0, ran.code
    return json.loads(ran.out) if ran.out.startswith(("[", "{")) else ran.out.strip()
