"""The peer, unmodified, in an environment of its own: what compatibility and benchmarks are measured against."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parents[1]
PACKAGES = ("apache-airflow==3.3.2", "apache-airflow-providers-edge3==5.1.0")
DRIVERS = ("psycopg2-binary", "asyncpg")
_INSTALL_TIMEOUT = 600.0


def edge3_interpreter() -> Path:
    """Return the Python of an environment with edge3 and without us, made the first time and kept beside our own."""
    folder = ROOT / ".venv" / "edge3"
    ready = folder / ".ready"
    python = folder / "bin" / "python"
    with FileLock(f"{folder}.lock"):
        if not ready.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", ROOT / "constraints.txt"]
            subprocess.run([*pip, *PACKAGES, *DRIVERS], check=True, timeout=_INSTALL_TIMEOUT)
            ready.touch()
    return python
