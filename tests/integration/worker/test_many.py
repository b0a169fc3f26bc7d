"""Many jobs at once on one worker cost their own memory, and no threads."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import Start, finished
from edge_worker import kin
from edge_worker.guard import used
from fake_server import FakeCentral
from test_airflow import execute_task, real

pytestmark = pytest.mark.parametrize("transport", ["channel"])

JOBS = 20

DAG = """
from airflow.sdk import dag, task

@dag(schedule=None)
def edge():
    @task
    def waits():
        import os, time
        from pathlib import Path
        Path({here!r}, str(os.getpid())).touch()
        while not Path({go!r}).exists():
            time.sleep(0.1)
    waits()

edge()
"""


def test_many_jobs_at_once_share_what_they_can(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    here, go = tmp_path / "here", tmp_path / "go"
    here.mkdir()
    daemon = real(central, start, tmp_path, concurrency=JOBS)
    (tmp_path / "dags" / "edge.py").write_text(DAG.format(here=str(here), go=str(go)))
    process = psutil.Process(daemon.pid)
    jobs = [execute_task(central, "waits")]
    central.wait_for(lambda: len(list(here.iterdir())) == 1, 90)
    [zygote] = process.children()
    before = process.num_threads(), process.num_fds(), zygote.num_threads(), zygote.num_fds()
    jobs += [execute_task(central, "waits") for _ in range(JOBS - 1)]
    central.wait_for(lambda: len(list(here.iterdir())) == JOBS, 120)
    after = process.num_threads(), process.num_fds(), zygote.num_threads(), zygote.num_fds()
    # A pool's threads begin one by one, and are few.
    assert after[0] - before[0] < 5
    assert after[1] - before[1] <= 3 * JOBS
    assert after[2:] == before[2:]
    # Each is two processes, Airflow's supervisor and the task; edge3's take 98 MB.
    assert used(kin.trees([zygote.pid], kin.table())) / JOBS < 65e6
    go.touch()
    for job in jobs:
        central.wait_for(finished(job), 60)
        assert job.state == "success"


def test_daemon_may_open_the_files_of_many_jobs(transport: str) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    code = "import resource as r; from edge_worker.daemon import allow_files\n"
    code += f"r.setrlimit(r.RLIMIT_NOFILE, (1024, {hard})); allow_files(); print(r.getrlimit(r.RLIMIT_NOFILE)[0])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(ran.stdout) == (16_384 if hard == resource.RLIM_INFINITY else min(hard, 16_384))
