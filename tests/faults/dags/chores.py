"""One DAG for each site of the fault suite: tasks that say that they began, log, work, have their effect, and end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta

import ledger
import psutil
from airflow.sdk import dag, get_current_context, task

SITES = 8
HOLD = 600.0
"""Seconds that misbehaviour lasts at most, should nothing end it."""


def chores(site: int):
    """Return the DAG of a site, whose queue no other site takes."""

    @dag(dag_id=f"chores_{site}", schedule=None, catchup=False, max_active_tasks=64, max_active_runs=64)
    def chores():
        @task(queue=f"site-{site}", retries=8, retry_delay=timedelta(seconds=1))
        def plan() -> list[int]:
            ledger.note("start")
            note_overlap()
            return list(range(get_current_context()["dag_run"].conf["tasks"]))

        @task(queue=f"site-{site}", retries=8, retry_delay=timedelta(seconds=1))
        def chore(index: int) -> None:
            context = get_current_context()
            conf = context["dag_run"].conf
            ledger.note("start")
            note_overlap()
            first = context["ti"].try_number == 1
            for number in range(conf["lines"]):
                print(f"line {number} of {index} " + "." * (number % 50), flush=True)
                time.sleep(conf["seconds"] / conf["lines"])
            if first and index == 0:
                MANNERS[conf["manner"]]()
            ledger.note("effect")
            print(f"end of {index}", flush=True)

        chore.expand(index=plan())

    chores()


def note_overlap() -> None:
    """Note each earlier try of this task that still runs."""
    mine = ledger.entry("start")
    for earlier in ledger.read():
        if earlier["event"] != "start" or (earlier["task"], earlier["index"]) != (mine["task"], mine["index"]):
            continue
        if earlier["try"] < mine["try"] and alive(earlier):
            ledger.note("overlap")


def alive(entry: dict[str, object]) -> bool:
    """Return whether the process of an entry still runs; a later process with its pid began after the entry."""
    try:
        process = psutil.Process(int(str(entry["pid"])))
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() < float(str(entry["time"]))
    except psutil.NoSuchProcess:
        return False


def behave() -> None:
    """Do nothing more."""


def ignore_sigterm() -> None:
    """Do not heed the polite signal."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ledger.note("misbehaves")
    until = time.monotonic() + HOLD
    while time.monotonic() < until:
        time.sleep(0.2)


def hoard() -> None:
    """Take 4 GB of memory, and hold them."""
    ledger.note("misbehaves")
    hoard = [bytearray(64 * 1024 * 1024) for _ in range(64)]
    for block in hoard:
        block[::4096] = b"x" * len(block[::4096])
    time.sleep(HOLD)


def bomb() -> None:
    """Start processes that start processes, 800 in all, and each leaves the task's session."""
    ledger.note("misbehaves")
    code = "import os, time\nfor _ in range(7):\n    if os.fork() == 0:\n        os.setsid()\ntime.sleep(60)"
    for _ in range(6):
        subprocess.Popen([sys.executable, "-S", "-c", code])
    time.sleep(HOLD)


def abandon() -> None:
    """Leave a process behind that has left the task's session."""
    code = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(600)\n"
    subprocess.run([sys.executable, "-S", "-c", code], check=True, env={**os.environ, "EDGE_FAULTS_LEFT": "1"})


MANNERS = {"work": behave, "stubborn": ignore_sigterm, "greedy": hoard, "bomb": bomb, "abandons": abandon}

for number in range(SITES):
    chores(number)
