"""One run: tasks at a site, one fault at a random time, and what became of the tasks, their effects and their logs."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.airflow_api import UNFINISHED
from demo.wait import NotSeen, wait_for
from tests.faults.catalogue import Fault
from tests.faults.sites import Site

TASKS = 4
END_WITHIN = 240.0
"""Seconds after the fault in which every task has ended, a task's waits for its next try included."""
BACK_WITHIN = 60.0
"""Seconds after the fault in which the worker is back by itself."""
LOG_WITHIN = 60.0
"""Seconds after the last task's end in which every log is complete."""


@dataclass
class Outcome:
    """What one run showed. ``jobs`` are tries that began; a try is ``doubled`` when it began twice, when it ran beside
    another try of its task, or when an effect came again although no task was killed. Bytes are those of task logs."""

    fault: str
    seed: str
    jobs: int = 0
    lost: int = 0
    doubled: int = 0
    repeated: int = 0
    """Effects that came again in a new try, after the fault had killed the one before."""
    bytes: int = 0
    bytes_lost: int = 0
    bytes_doubled: int = 0
    by_hand: int = 0
    """1 where the worker did not come back by itself."""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """Whether nothing was lost, doubled or needed a hand."""
        return not (self.lost or self.doubled or self.bytes_lost or self.bytes_doubled or self.by_hand)


def run(site: Site, fault: Fault, seed: str) -> Outcome:
    """Do one run; ``seed`` decides all that is random in it."""
    draw = random.Random(seed)
    outcome = Outcome(fault.name, seed)
    began = time.monotonic()
    dag, run_id = f"chores_{site.number}", f"{site.name}-{re.sub('[^a-z0-9]', '-', seed)}"
    conf = {"tasks": TASKS, "lines": 20, "seconds": draw.uniform(0.5, 3.0), "manner": fault.manner}
    try:
        _trigger(site, dag, run_id, conf)
        _inject(site, fault, draw, run_id)
        _finish(site, dag, run_id, outcome)
        _come_back(site, outcome)
        _judge_logs(site, run_id, outcome)
        _judge_tasks(_ledger(site, run_id), fault, outcome)
    except Exception as problem:  # noqa: BLE001 - the next run tells whether it was the fault's or the suite's
        outcome.lost += 1
        outcome.notes.append(f"{type(problem).__name__}: {problem}")
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


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


def _inject(site: Site, fault: Fault, draw: random.Random, run_id: str) -> None:
    if draw.random() < 0.8:
        # Most faults meet tasks at work, some their assignment or launch.
        wait_for(lambda: _ledger(site, run_id), "a task to begin", timeout=120, pause=0.05)
    time.sleep(draw.uniform(0.0, 3.0))
    if fault.central:
        with site.central.one_fault:
            fault.inject(site, draw)
    else:
        fault.inject(site, draw)


def _finish(site: Site, dag: str, run_id: str, outcome: Outcome) -> None:
    def ended() -> str | None:
        state = site.central.cluster.api.run_state(dag, run_id)
        return None if state in UNFINISHED else state

    try:
        state = site.central.persist(ended, "the run to end", END_WITHIN)
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
        site.wait_back(BACK_WITHIN)
    except NotSeen:
        outcome.by_hand = 1
        outcome.notes.append("the worker did not come back")


def _judge_tasks(entries: list[dict[str, Any]], fault: Fault, outcome: Outcome) -> None:
    starts = Counter((e["task"], e["index"], e["try"]) for e in entries if e["event"] == "start")
    effects = Counter((e["task"], e["index"]) for e in entries if e["event"] == "effect")
    outcome.jobs = len(starts)
    again = sum(count - 1 for count in effects.values())
    outcome.doubled = sum(count - 1 for count in starts.values())
    outcome.doubled += sum(e["event"] == "overlap" for e in entries)
    if fault.kills:
        outcome.repeated = again
    else:
        outcome.doubled += again
    outcome.lost += max(0, TASKS - len(effects)) if not outcome.lost else 0
    if outcome.doubled:
        outcome.notes.append(f"starts {dict(starts)}, effects {dict(effects)}")


def _judge_logs(site: Site, run_id: str, outcome: Outcome) -> None:
    """Hold what was logged at the site against what the centre has."""

    def files() -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for file in sorted(site.kept.glob(f"*/**/run_id={run_id}/**/*.log")):
            job = file.relative_to(site.kept).parts[0]
            found.setdefault(str(file.relative_to(site.kept / job)), []).append(file)
        return found

    def differences() -> list[tuple[str, bytes, bytes]]:
        different = []
        for path, parts in files().items():
            there = site.central.logs / path
            written = b"".join(part.read_bytes() for part in parts)
            stored = there.read_bytes() if there.exists() else b""
            if written != stored:
                different.append((path, written, stored))
        return different

    try:
        wait_for(lambda: not differences(), "the logs to be complete", timeout=LOG_WITHIN)
    except NotSeen:
        for path, written, stored in differences():
            same = next((i for i, (a, b) in enumerate(zip(written, stored, strict=False)) if a != b), None)
            at = min(len(written), len(stored)) if same is None else same
            outcome.bytes_lost += max(0, len(written) - max(at, len(stored)))
            outcome.bytes_doubled += max(0, len(stored) - len(written))
            if len(written) == len(stored):
                outcome.bytes_lost += len(written) - at
            outcome.notes.append(f"{path}: {len(written)} bytes there, {len(stored)} here, the same up to {at}")
    for parts in files().values():
        for part in parts:
            outcome.bytes += part.stat().st_size
            if outcome.right:
                part.unlink()


def _ledger(site: Site, run_id: str) -> list[dict[str, Any]]:
    file = site.central.ledger / f"{run_id}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
