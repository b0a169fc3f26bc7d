"""Both sides in one run on one PostgreSQL; a table of ratios, and .bench/result.json."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

from demo.postgres import Postgres
from tests.edge3_environment import PACKAGES, edge3_interpreter

ROOT = Path(__file__).parents[2]
RESULT = ROOT / ".bench" / "result.json"
FIGURES = {
    "idle_rss_mb": "idle worker, RSS in MB",
    "idle_pss_mb": "idle worker, PSS in MB",
    "start_to_registered_s": "worker start to registered, s",
    "sync_ms": "sync() with 20,000 finished jobs retained, ms",
    "mapped_64_s": "64 short mapped tasks, concurrency 8, s",
    "packages": "packages of a worker-only install",
    "installed_mb": "size of a worker-only install, MB",
}


def side(name: str, python: str, database: str) -> dict[str, float]:
    """Measure one side in its own environment."""
    print(f"{name}: measuring …", flush=True)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [python, "-m", "tests.bench.side", name, database],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name} could not be measured: see above.")
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def footprint(requirement: list[str]) -> dict[str, float]:
    """Install a worker alone and return its packages and their size, without pip's own."""
    folder = Path(tempfile.mkdtemp(prefix="edge-footprint-"))
    try:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        python = folder / "bin" / "python"
        pip = [sys.executable, "-m", "pip", "--python", str(python)]
        subprocess.run(
            [*pip, "install", "--quiet", "--no-compile", "-c", str(ROOT / "constraints.txt"), *requirement], check=True
        )
        listed = subprocess.run([*pip, "list", "--format=json"], check=True, capture_output=True, text=True)
        files = [f for f in (folder / "lib").rglob("*") if f.is_file() and not f.is_symlink()]
        return {"packages": len(json.loads(listed.stdout)), "installed_mb": sum(f.stat().st_size for f in files) / 1e6}
    finally:
        shutil.rmtree(folder)


def main() -> None:
    """Measure, print and store."""
    ArgumentParser(prog="make bench", description=__doc__).parse_args()
    edge3_python = str(edge3_interpreter())
    postgres = Postgres()
    try:
        result = {
            "ours": side("ours", sys.executable, postgres.new_database()) | footprint([str(ROOT)]),
            "edge3": side("edge3", edge3_python, postgres.new_database()) | footprint(list(PACKAGES)),
        }
    finally:
        postgres.stop()
    print(f"\n{'':48}{'ours':>10}{'edge3':>10}{'ratio':>8}")
    for key, text in FIGURES.items():
        ours, theirs = result["ours"][key], result["edge3"][key]
        print(f"{text:48}{ours:10.1f}{theirs:10.1f}{ours / theirs:8.3f}")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
