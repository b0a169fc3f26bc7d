"""Many tasks that do nothing until they are let go: what is measured is what it takes to have them there."""

import json
import os
import time
from pathlib import Path

from airflow.sdk import Param, dag, task

PARAMS = {"n": Param(1, type="integer"), "folder": Param("", type="string")}


@dag(schedule=None, catchup=False, params=PARAMS, max_active_tasks=1000)
def bench_crowd():
    @task
    def numbers(**context):
        return list(range(context["params"]["n"]))

    @task
    def sleep(number, **context):
        # Since boot, as the kernel dates processes: the wall clock's time of boot is known to a second only.
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        folder = Path(context["params"]["folder"])
        # The task's parent is its supervisor: the process that the worker has started for the job.
        parent = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()
        launched = int(parent[19]) / os.sysconf("SC_CLK_TCK")
        new = folder / f"{number}.new"
        new.write_text(json.dumps({"launched": launched, "runs": now}))
        new.rename(folder / f"{number}.json")
        while not (folder / "go").exists():
            time.sleep(1)

    sleep.expand(number=numbers())


bench_crowd()
