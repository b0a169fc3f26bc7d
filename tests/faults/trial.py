"""One run: tasks at a site, one fault at a random time, and what became of the tasks, their effects and their logs."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import nullcontext
from typing import Any, TypeVar

from demo.airflow_api import UNFINISHED
from demo.wait import NotSeen, wait_for
from tests.faults.catalogue import Fault, NotInjected
from tests.faults.judgement import Outcome, Try, judge_log, judge_tasks
from tests.faults.sites import Site

Value = TypeVar("Value")
TASKS = 4
BEGIN_WITHIN = 120.0
LAST_WORDS = 0.2
"""Seconds after its work in which a task has its effect, says so, and ends."""
END_WITHIN = 240.0
"""Seconds after the fault in which every task has ended, a task's waits for its next try included."""
SAID = b"folder of this task was removed"
BACK_WITHIN = 60.0
"""Seconds after the run has ended, or its time is over, in which the worker is back by itself."""
QUIET_WITHIN = 30.0
"""Seconds after that in which nothing of a job's processes is left."""
LOG_WITHIN = 60.0
"""Seconds after the last task's end in which every log is complete."""


def run(site: Site, fault: Fault, seed: str) -> Outcome:
    """Do one run; ``seed`` decides all that is random in it."""
    draw = random.Random(seed)
    outcome = Outcome(fault.name, seed)
    began, crashed = time.monotonic(), site.restarts
    dag = f"chores_{site.number}"
    run_id = site.run_id = f"{site.name}-{re.sub('[^a-z0-9]', '-', seed)}"
    conf = {"tasks": TASKS, "lines": 20, "seconds": draw.uniform(0.5, 3.0), "manner": fault.manner}
    try:
        _trigger(site, dag, run_id, conf)
        killed = _inject(site, fault, draw, conf["seconds"], outcome)
        _finish(site, dag, run_id, outcome)
        _come_back(site, outcome)
        _judge_logs(site, run_id, fault, outcome)
        _look_for_leftovers(site, outcome)
        judge_tasks(_ledger(site), TASKS, killed, outcome)
    except Exception as problem:  # noqa: BLE001 - the next run tells whether it was the fault's or the suite's
        outcome.lost += 1
        outcome.notes.append(f"{type(problem).__name__}: {problem}")
    outcome.crashed = site.restarts - crashed
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def _patiently(site: Site, wait: Callable[[], Value]) -> Value:
    """Return what ``wait`` sees. Where its time is too short for that, it has the same time again, in which no fault of
    another site touches the centre: those may have kept it away all the while. Raises NotSeen."""
    try:
        return wait()
    except NotSeen:
        with site.central.one_fault:
            return wait()


def _trigger(site: Site, dag: str, run_id: str, conf: dict[str, Any]) -> None:
    api = site.central.cluster.api

    def trigger() -> bool:
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        try:
            api.call("POST", f"dags/{dag}/dagRuns", json=body)
        except Exception as refused:
            if "409" not in str(refused):
                raise
        return True

    site.central.persist(trigger, "the run to be taken", 120)


def _inject(site: Site, fault: Fault, draw: random.Random, seconds: float, outcome: Outcome) -> AbstractSet[Try]:
    """Return the tries that the fault killed."""

    def begun() -> bool:
        return any(entry["index"] >= 0 for entry in _ledger(site))

    if draw.random() < 0.8:
        # Most faults meet tasks at work, some their assignment or launch.
        _patiently(site, lambda: wait_for(begun, "a task to begin", timeout=BEGIN_WITHIN, pause=0.05))
    time.sleep(draw.uniform(0.0, seconds + LAST_WORDS if fault.at_work else 3.0))
    try:
        with site.central.one_fault if fault.central else nullcontext():
            return fault.inject(site, draw) or frozenset()
    except NotInjected as nobody:
        outcome.missed = 1
        outcome.notes.append(str(nobody))
        return frozenset()


def _finish(site: Site, dag: str, run_id: str, outcome: Outcome) -> None:
    def ended() -> str | None:
        state = site.central.cluster.api.run_state(dag, run_id)
        return None if state in UNFINISHED else state

    try:
        state = _patiently(site, lambda: site.central.persist(ended, "the run to end", END_WITHIN))
    except NotSeen:
        state = "unfinished"
    ended_tasks = site.central.persist(lambda: site.central.cluster.api.tasks(dag, run_id), "the tasks", 120)
    failed = [task for task in ended_tasks if task["state"] != "success"]
    # The chores that never came to be, too, and the run itself.
    outcome.lost += len(failed) or int(state != "success")
    if failed or state != "success":
        outcome.notes.append(f"{state}: " + ", ".join(f"{t['task_id']}[{t['map_index']}] {t['state']}" for t in failed))


def _come_back(site: Site, outcome: Outcome) -> None:
    try:
        _patiently(site, lambda: site.wait_back(BACK_WITHIN))
    except NotSeen:
        outcome.by_hand = 1
        outcome.notes.append("the worker did not come back")


def _look_for_leftovers(site: Site, outcome: Outcome) -> None:
    try:
        wait_for(lambda: not site.leftovers(), "the site to be quiet", timeout=QUIET_WITHIN)
    except NotSeen:
        left = site.leftovers()
        outcome.left = len(left)
        outcome.notes.append(f"left over: {left[:5]}")


def _judge_logs(site: Site, run_id: str, fault: Fault, outcome: Outcome) -> None:
    """Hold what was logged at the site against what the centre has."""

    def differences() -> list[tuple[str, bytes, bytes]]:
        different = []
        for path, parts in site.logs(run_id).items():
            there = site.central.logs / path
            written = b"".join(part.read_bytes() for part in parts)
            stored = there.read_bytes() if there.exists() else b""
            if written != stored and not (fault.destroys and SAID in stored):
                different.append((path, written, stored))
        return different

    try:
        _patiently(site, lambda: wait_for(lambda: not differences(), "the logs to be complete", timeout=LOG_WITHIN))
    except NotSeen:
        for path, written, stored in differences():
            lost, doubled = judge_log(written, stored)
            outcome.bytes_lost += lost
            outcome.bytes_doubled += doubled
            outcome.notes.append(f"{path}: {len(written)} bytes there, {len(stored)} here")
    for parts in site.logs(run_id).values():
        for part in parts:
            outcome.bytes += part.stat().st_size
            if outcome.right:
                part.unlink()


def _ledger(site: Site) -> list[dict[str, Any]]:
    file = site.central.ledger / f"{site.run_id}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
