"""The sentences at the top of the fleet's dashboard, as promtool finds them in made-up series."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from board_files import filled
from tools import missing

from dashboards import links, problems
from dashboards.prometheus import series
from edge_otel.telemetry import names

WORKER, QUEUE, SCRAPE = {"worker": "=w", "team": "=x"}, {"queue": "=q", "team": "=x"}, {"job": "=e", "instance": "=api"}
STATE = series(names.WORKER_STATES, **WORKER, state="=unknown")
CODE = series(names.WORKER_STATE_CODE, **WORKER)
HEARD = series(names.WORKER_LAST_HEARTBEAT, **WORKER)
WAITING = series(names.JOBS, **QUEUE, state="=queued")
TAKERS = series(names.QUEUE_WORKERS, **QUEUE)
FAILED = series(names.JOBS_FINISHED, queue="=q", outcome="=failed")
SUCCEEDED = series(names.JOBS_FINISHED, queue="=q", outcome="=success")
AGE = series(names.SNAPSHOT_AGE, **SCRAPE)
UP = 'up{job="e",instance="api"}'
SOUND = {
    STATE: "0x10",
    CODE: "1x10",
    HEARD: "590x10",
    series(names.WORKER_HEARTBEAT_INTERVAL, **WORKER): "30x10",
    WAITING: "3x10",
    TAKERS: "1x10",
    SUCCEEDED: "0+10x10",
    FAILED: "0x10",
    AGE: "2x10",
    UP: "1x10",
}
"""Series of ten minutes in which nothing is wrong, a value for each minute."""
GONE = "Worker w is gone, and nobody asked it to go."
ABSENT = "There are no metrics of the fleet: no Edge API answers Prometheus."
FAULTS = {
    "nothing": ({}, None, ""),
    "state unknown": ({STATE: "1x10", CODE: "32x10"}, GONE, links.WORKER),
    "silent and takes jobs": ({HEARD: "100x10"}, GONE, links.WORKER),
    "silent in maintenance": ({HEARD: "100x10", CODE: "13x10"}, None, ""),
    "stopped in order": ({HEARD: "100x10", CODE: "30x10"}, None, ""),
    "no workers": ({TAKERS: "0x10"}, "Jobs wait in queue q, and no worker takes them.", links.JOBS),
    "no workers and no jobs": ({TAKERS: "0x10", WAITING: "0x10"}, None, ""),
    "failures": ({FAILED: "0+20x10"}, "More than 20% of the jobs of queue q fail.", links.JOBS),
    "few failures": ({FAILED: "0+2x10"}, None, ""),
    "few jobs, of which some failed": ({FAILED: "0x5 2x5", SUCCEEDED: "0x5 4x5"}, None, ""),
    "one job, which failed": ({FAILED: "0x5 1x5", SUCCEEDED: "0x10"}, None, ""),
    "server away": ({UP: "1x6 0x3", AGE: "2x8"}, "Prometheus cannot read the Edge API at api.", links.TRANSPORT),
    "no metrics": ({AGE: "_x10"}, ABSENT, links.TRANSPORT),
    "old metrics": (
        {AGE: "100x10"},
        "The Edge API cannot read the fleet: its database does not answer.",
        links.TRANSPORT,
    ),
}
"""What is different, which sentence is shown then, and where it leads."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_problem_is_told_in_words_with_where_to_look_and_only_while_it_is_there(fault, tmp_path):
    if shutil.which("promtool") is None:
        missing("promtool is not installed: apt-get install prometheus")
    different, what, look = FAULTS[fault]
    asked = " or ".join(f"count by (what, look) ({filled(problem)})" for problem in problems.PROBLEMS)
    told = [{"labels": f'{{what="{what}",look="{look}"}}', "value": 1}] if what else []
    values = [{"series": one, "values": said} for one, said in (SOUND | different).items()]
    expected = [{"expr": asked, "eval_time": "10m", "exp_samples": told}]
    file = tmp_path / "problems.json"
    file.write_text(json.dumps({"tests": [{"interval": "1m", "input_series": values, "promql_expr_test": expected}]}))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_problem_has_a_fault_that_shows_it():
    shown = {what for _, what, _ in FAULTS.values() if what}
    assert len(shown) == len(problems.PROBLEMS)
