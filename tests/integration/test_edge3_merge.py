"""The committed table of edge3's merge rules is what an installed edge3 does."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_is_what_an_installed_edge3_does(tmp_path, edge3_python):
    printed = subprocess.run(
        [edge3_python, Path(__file__).with_name("edge3_merge.py")],
        capture_output=True,
        text=True,
        check=True,
        env={"AIRFLOW_HOME": str(tmp_path), "PATH": os.environ["PATH"]},
    )
    table = json.loads((ROOT / "tests" / "unit" / "edge3_merge.json").read_text())
    assert json.loads(printed.stdout) == table
