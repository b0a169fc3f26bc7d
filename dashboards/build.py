"""Writes what Grafana and Prometheus read, from the code in this folder: ``python -m dashboards.build [--check]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from dashboards import fleet, jobs, rules, transport, worker

OUT = Path(__file__).with_name("out")

FILES: dict[str, Callable[[], str]] = {
    "fleet.json": fleet.text,
    "jobs.json": jobs.text,
    "worker.json": worker.text,
    "transport.json": transport.text,
    rules.FILE: rules.text,
}
"""Each file with the function that returns its text."""


def main() -> int:
    """Write the files, or say which of them are not current. Returns the exit status."""
    about = "Write the dashboards and rules to dashboards/out/."
    parser = argparse.ArgumentParser(prog="python -m dashboards.build", description=about)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if a file is not what would be written"
    )
    only_check = parser.parse_args().check
    different = [name for name, text in FILES.items() if _said(OUT / name) != text()]
    if only_check:
        for name in different:
            print(f"dashboards/out/{name} is not what the code says: run python -m dashboards.build", file=sys.stderr)
        return 1 if different else 0
    OUT.mkdir(exist_ok=True)
    for name in different:
        (OUT / name).write_text(FILES[name](), encoding="utf-8")
        print(f"wrote dashboards/out/{name}")
    return 0


def _said(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
