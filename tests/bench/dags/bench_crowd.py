"""Many tasks that do nothing until they are let go: what is measured is what it takes to have them there."""

import json
import time
from pathlib import Path

import psutil
from airflow.sdk import Param, dag, task

PARAMS = {"n": Param(1, type="integer"), "folder": Param("", type="string")}


@dag(schedule=None, catchup=False, params=PARAMS, max_active_tasks=1000)
def bench_crowd():
    @task
    def numbers(**context):
        return list(range(context["params"]["n"]))

    @task
    def sleep(number, **context):
        now = time.time()
        folder = Path(context["params"]["folder"])
        # The task's parent is its supervisor: the process that the worker has started for the job.
        launched = psutil.Process().parent().create_time()
        new = folder / f"{number}.new"
        new.write_text(json.dumps({"launched": launched, "runs": now}))
        new.rename(folder / f"{number}.json")
        while not (folder / "go").exists():
            time.sleep(1)

    sleep.expand(number=numbers())


bench_crowd()
