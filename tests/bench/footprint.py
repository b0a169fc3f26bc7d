"""What a worker-only install brings to a machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def footprint(requirement: list[str]) -> dict[str, float]:
    """Install a worker alone and return its packages and their size, without pip's own."""
    folder = Path(tempfile.mkdtemp(prefix="edge-footprint-"))
    try:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        python = folder / "bin" / "python"
        pip = [sys.executable, "-m", "pip", "--python", str(python)]
        constraints = ["-c", str(ROOT / "constraints.txt")]
        subprocess.run([*pip, "install", "--quiet", "--no-compile", *constraints, *requirement], check=True)
        listed = subprocess.run([*pip, "list", "--format=json"], check=True, capture_output=True, text=True)
        files = [f for f in (folder / "lib").rglob("*") if f.is_file() and not f.is_symlink()]
        return {"packages": len(json.loads(listed.stdout)), "installed_mb": sum(f.stat().st_size for f in files) / 1e6}
    finally:
        shutil.rmtree(folder)
