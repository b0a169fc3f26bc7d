"""The figures of the table: what each is called, which way is better, and what is aimed at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One row. Goals are None where nothing is aimed at."""

    key: str
    text: str
    more_is_better: bool = False
    times: float | None = None
    """How many times better than edge3's."""
    least: float | None = None
    most: float | None = None
    """Bounds of our own figure."""

    def ratio(self, ours: float | None, edge3: float | None) -> float | None:
        """Return how many times better ours is; None where one of the two is missing."""
        if ours is None or edge3 is None:
            return None
        above, below = (ours, edge3) if self.more_is_better else (edge3, ours)
        return above / below if below else None

    def met(self, ours: float | None, ratio: float | None) -> bool | None:
        """Return whether the goal is met; None where there is none, or nothing was measured."""
        if ours is None or (self.times, self.least, self.most) == (None, None, None):
            return None
        if self.times is not None and ratio is None:
            return None
        return (
            (self.times is None or (ratio or 0.0) >= self.times)
            and (self.least is None or ours >= self.least)
            and (self.most is None or ours <= self.most)
        )

    def goal(self) -> str:
        """Return the goal as text."""
        parts = [
            f"{self.times:g}x" if self.times is not None else "",
            f">= {self.least:g}" if self.least is not None else "",
            f"<= {self.most:g}" if self.most is not None else "",
        ]
        return ", ".join(part for part in parts if part)


FLAT = 1.5
"""A cost that has grown by less than this, while the fleet grew 20 times, has not grown with it."""

FIGURES = (
    Figure("heartbeats_per_s", "heartbeats/s of 32 connections, one API process", True, times=25),
    Figure("heartbeats_v1_per_s", "  the same over v1 (ours: a worker that polls)", True),
    Figure("assigned_per_s", "jobs assigned and confirmed/s, 20,000 queued", True, times=15),
    Figure("assigned_ended_per_s", "  and ended", True),
    Figure("start_p50_s", "queued to process started, idle worker, median, s", times=10),
    Figure("start_p99_s", "queued to process started, idle worker, p99, s", times=10, most=0.5),
    Figure("sync_ms", "sync() with 20,000 finished jobs retained, ms", times=50),
    Figure("idle_statements", "statements per idle worker and minute, 100 workers", times=10),
    Figure("mapped_64_s", "64 short mapped tasks, concurrency 8, s"),
    Figure("start_to_registered_s", "worker start to registered, s"),
    Figure("idle_rss_mb", "idle worker, RSS in MB"),
    Figure("idle_pss_mb", "idle worker, PSS in MB"),
    Figure("launch_s", "a job's process to the task's own code, idle worker, s"),
    Figure("crowd_s", "200 sleeping tasks, first process to last task's code, s"),
    Figure("crowd_pss_mb", "  worker with all of them, PSS in MB"),
    Figure("packages", "packages of a worker-only install"),
    Figure("installed_mb", "size of a worker-only install, MB"),
    Figure("fleet_workers", "workers carried by one API process, 20 jobs/s", True, least=2000),
    Figure("fleet_assignment_p99_s", "  queued to confirmed with 2,000, p99, s", most=1.0),
    Figure("fleet_lost", "  jobs lost", most=0),
    Figure("fleet_doubled", "  jobs given to two workers", most=0),
    Figure("growth_assignment", "  2,000 against 100 workers: assignment, median", most=FLAT),
    Figure("growth_statements_per_job", "  … statements per job", most=FLAT),
    Figure("growth_statements_per_heartbeat", "  … statements per heartbeat", most=FLAT),
    Figure("growth_cpu_per_heartbeat", "  … CPU time per heartbeat", most=FLAT),
    Figure("reconnect_500_s", "500 workers back, from when a killed API process answers again, s", most=60),
    Figure("telemetry_run_percent", "telemetry on against off: 64 mapped tasks take longer by, %", most=5),
    Figure("telemetry_task_percent", "  a task takes longer by, median, %", most=5),
    Figure("telemetry_fault_percent", "  collector at its worst against healthy: a task, median, %", most=5),
    Figure("telemetry_rss_mb", "  daemon alone, after all of it, RSS in MB", most=65),
    Figure("logs_one_mb_s", "one task's log of 1 GB to the store, MB/s", True, times=3),
    Figure("logs_many_mb_s", "50 tasks that log at once, to the store, MB/s", True, times=3),
    Figure("logs_end_s", "  from the last byte of 1 GB to the job's recorded end, s", most=1),
    Figure("logs_many_end_s", "  the same of 50 tasks that log 1 MB/s each, the slowest, s", most=1),
    Figure("logs_lag_s", "  from their last byte to the last one's in the store, s"),
    Figure("logs_daemon_rss_mb", "  daemon, peak RSS in MB", most=150),
    Figure("logs_api_rss_mb", "  API process, peak RSS in MB"),
    Figure("logs_quiet_percent", "  daemon with 50 quiet jobs, CPU in % of a core", most=2),
    Figure("page_load_s", "page of 2,000 workers: address to first rows, s", most=1),
    Figure("page_filter_ms", "  from a filter to its rows, median, ms", most=300),
    Figure("page_filter_worst_ms", "  … the slowest, ms", most=300),
    Figure("page_jobs_s", "  page of 20,000 jobs: address to first rows, s", most=1),
    Figure("page_jobs_filter_ms", "  … from a filter to its rows, ms", most=300),
)


def rows(ours: Mapping[str, float], edge3: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Return what was measured by key: ours, edge3, ratio (times better), goal, met."""
    found = {}
    for figure in FIGURES:
        mine, theirs = ours.get(figure.key), edge3.get(figure.key)
        if mine is None and theirs is None:
            continue
        ratio = figure.ratio(mine, theirs)
        found[figure.key] = {
            "text": figure.text.strip(" …"),
            "ours": mine,
            "edge3": theirs,
            "ratio": ratio,
            "goal": figure.goal() or None,
            "met": figure.met(mine, ratio),
        }
    return found


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the rows as text."""
    lines = [f"{'':52}{'ours':>10}{'edge3':>10}{'better':>9}  {'goal':14}met"]
    for figure in FIGURES:
        if (row := found.get(figure.key)) is not None:
            ratio = f"{row['ratio']:.1f}x" if row["ratio"] is not None else ""
            met = {True: "yes", False: "NO", None: ""}[row["met"]]
            line = f"{figure.text:52}{number(row['ours']):>10}{number(row['edge3']):>10}{ratio:>9}"
            lines.append(f"{line}  {row['goal'] or '':14}{met}".rstrip())
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Return three digits that count, or a whole number."""
    if value is None:
        return "-"
    if abs(value) >= 100 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.3g}"
