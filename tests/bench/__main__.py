"""Measures both sides in one run on one PostgreSQL; writes a table, .bench/result.json and .bench/result.png."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, ArgumentTypeError
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from demo.postgres import Postgres
from tests.bench import figures
from tests.bench.findings import Findings
from tests.bench.footprint import ROOT, footprint
from tests.bench.picture import draw
from tests.bench.sizes import Sizes
from tests.edge3_environment import PACKAGES, edge3_interpreter

FOLDER = ROOT / ".bench"
SIDE_PARTS = ("sync", "heartbeats", "assignment", "idle", "worker", "start", "mapped", "logs", "page", "crowd")
PARTS = (*SIDE_PARTS, "packages", "fleet", "telemetry")
ALONE = {"fleet": "growth", "telemetry": "telemetry"}
"""Parts that are about ours only, and the modules that measure them."""
LONGEST = 1800.0
"""Seconds for one side."""


def main() -> None:
    """Measure, print and store."""
    chosen, sizes = arguments()
    began = time.monotonic()
    found = {"ours": Findings("ours"), "edge3": Findings("edge3")}
    log = Path(tempfile.mkdtemp(prefix="edge-bench-")) / "postgres.log"
    pythons = {"ours": sys.executable, "edge3": str(edge3_interpreter())}
    postgres = Postgres(log)
    try:
        if parts := [part for part in chosen if part in SIDE_PARTS]:
            for side, python in pythons.items():
                command = [python, "-m", "tests.bench.side", side, postgres.new_database(), str(log), ",".join(parts)]
                run(command, sizes, found[side])
        for part in (part for part in chosen if part in ALONE):
            command = [sys.executable, "-m", f"tests.bench.{ALONE[part]}", postgres.new_database(), str(log)]
            run(command, sizes, found["ours"])
    finally:
        postgres.stop()
        shutil.rmtree(log.parent, ignore_errors=True)
    if "packages" in chosen:
        for side, requirement in {"ours": [str(ROOT)], "edge3": list(PACKAGES)}.items():
            found[side].attempt("packages", lambda f, r=requirement: f.figures.update(footprint(r)))
    store(found, sizes, time.monotonic() - began)


def arguments() -> tuple[list[str], Sizes]:
    """Return the chosen parts and the sizes."""
    parser = ArgumentParser(prog="make bench", description=__doc__, formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("--only", type=part_names, default=",".join(PARTS), metavar="PART,…", help="parts to measure")
    kinds = {"int": int, "float": float}
    for size in fields(Sizes):
        flag, kind = f"--{size.name.replace('_', '-')}", kinds.get(str(size.type), numbers)
        default = size.default if kind is not numbers else ",".join(map(str, size.default))
        parser.add_argument(flag, type=kind, default=default, metavar="N", help=size.metadata["text"])
    given = vars(parser.parse_args())
    return given.pop("only"), Sizes(**given)


def part_names(text: str) -> list[str]:
    """Return the names of parts."""
    names = text.split(",")
    if unknown := set(names) - set(PARTS):
        raise ArgumentTypeError(f"there is no part {', '.join(sorted(unknown))}: choose of {', '.join(PARTS)}")
    return names


def numbers(text: str) -> tuple[int, ...]:
    """Return whole numbers with commas between."""
    return tuple(int(part) for part in text.split(","))


def run(command: list[str], sizes: Sizes, findings: Findings) -> None:
    """Let a process of its own measure, and take over what it found."""
    try:
        done = subprocess.run(
            [*command, json.dumps(asdict(sizes))],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "BENCH_PYTHON": sys.executable},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=LONGEST,
        )
        told: dict[str, Any] = json.loads((done.stdout.strip().splitlines() or ["{}"])[-1])
    except (subprocess.TimeoutExpired, ValueError) as failure:
        findings.failed[command[2]] = f"{type(failure).__name__}: {failure}"
        return
    for name in ("figures", "details", "failed"):
        getattr(findings, name).update(told.get(name, {}))
    if done.returncode:
        findings.failed[command[2]] = f"It ended with code {done.returncode}: see above."


def store(found: dict[str, Findings], sizes: Sizes, took: float) -> None:
    """Print the table; write the result and the picture."""
    FOLDER.mkdir(exist_ok=True)
    rows = figures.rows(found["ours"].figures, found["edge3"].figures)
    details = {side: findings.details for side, findings in found.items()}
    failed = {side: findings.failed for side, findings in found.items() if findings.failed}
    result = {
        "figures": rows,
        "details": details,
        "failed": failed,
        "sizes": asdict(sizes),
        "machine": {"cores": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()},
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "took_s": round(took),
    }
    (FOLDER / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    draw(rows, found["ours"].details.get("fleet", []), FOLDER / "result.png")
    print("\n" + figures.table(rows))
    if broke := found["ours"].details.get("fleet_broke"):
        print(f"\nThe fleet broke at {broke}")
    for side, parts in failed.items():
        for part, why in parts.items():
            print(f"\nFAILED {side} {part}: {why}")
    print(f"\n{took / 60:.0f} minutes; {FOLDER / 'result.json'}, {FOLDER / 'result.png'}")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
