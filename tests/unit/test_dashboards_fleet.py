"""What panels of the fleet's dashboard show, as promtool finds it in made-up series."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from board_files import PANELS, filled
from tools import missing

from dashboards.prometheus import series
from edge_otel.telemetry import names

WORKERS = {"takes": ("running", 4, 2, "1.1"), "leaves": ("terminating", 4, 4, "1.1"), "left": ("offline", 4, 0, "1.0")}
"""Of each worker: state, slots, slots in use, version."""


def told() -> dict[str, float]:
    """What an Edge API says of these workers, by series."""
    said: dict[str, float] = {}
    for worker, (state, slots, used, version) in WORKERS.items():
        who = {"worker": f"={worker}", "team": "=x"}
        versions = {"version": f"={version}", "airflow_version": "=3.3.2", "python_version": "=3.11", "os": "=linux"}
        said[series(names.WORKER_STATE_CODE, **who)] = names.STATE_CODES[state]
        said[series(names.WORKER_SLOTS, **who)] = slots
        said[series(names.WORKER_SLOTS_USED, **who)] = used
        said[series(names.WORKER_INFO, worker=f"={worker}", **versions)] = 1
    return said


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("Slots in use", {"{}": 0.5}),
        ("Versions", {'{version="1.1",airflow_version="3.3.2",python_version="3.11"}': 2}),
    ],
)
def test_a_panel_counts_the_workers_that_it_speaks_of(title, shown, tmp_path):
    if shutil.which("promtool") is None:
        missing("promtool is not installed: apt-get install prometheus")
    (panel,) = (panel for panel in PANELS if str(panel) == f"fleet: {title}")
    (target,) = panel.targets
    asked = filled(target["expr"].replace("$workers", ".+"))
    expected = [{"labels": labels, "value": value} for labels, value in shown.items()]
    test = {
        "interval": "1m",
        "input_series": [{"series": one, "values": f"{value}x3"} for one, value in told().items()],
        "promql_expr_test": [{"expr": asked, "eval_time": "2m", "exp_samples": expected}],
    }
    file = tmp_path / "panel.json"
    file.write_text(json.dumps({"tests": [test]}))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
