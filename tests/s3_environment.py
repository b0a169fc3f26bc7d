"""Airflow's Amazon provider and an S3 server, in a folder of their own: what they require and what Airflow requires
cannot be installed together, though they work together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "apache-airflow-providers-amazon==9.39.0",
    "blinker==1.9.0",
    "boto3==1.44.5",
    "botocore==1.44.5",
    "flask-cors==6.0.5",
    "flask==3.1.3",
    "jmespath==1.1.0",
    "moto==5.2.5",
    "py-partiql-parser==0.6.3",
    "responses==0.26.3",
    "s3transfer==0.19.3",
    "xmltodict==1.0.4",
)
_INSTALL_TIMEOUT = 300.0


def s3_packages() -> Path:
    """Return the folder with them, for the module path of a process; made the first time and kept beside our own."""
    folder = ROOT / ".venv" / "s3"
    ready = folder / ".ready"
    with FileLock(f"{folder}.lock"):
        if not ready.exists() or ready.read_text() != "\n".join(PACKAGES):
            pip = [
                sys.executable,
                "-m",
                "pip",
                "install",
                "-q",
                "--disable-pip-version-check",
                "--upgrade",
                "--no-deps",
            ]
            subprocess.run([*pip, "--target", folder, *PACKAGES], check=True, timeout=_INSTALL_TIMEOUT)
            ready.write_text("\n".join(PACKAGES))
    return folder


def module_path(*more: Path) -> str:
    """Return a PYTHONPATH with them."""
    return os.pathsep.join(map(str, (*more, s3_packages())))
