"""How much is measured: every number that an option may change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def size(default: Any, text: str) -> Any:
    """Declare a number with its default and what it means."""
    return field(default=default, metadata={"text": text})


@dataclass(frozen=True)
class Sizes:
    """Durations are in seconds."""

    seconds: float = size(12.0, "of each load in a closed loop")
    heartbeat_connections: int = size(32, "connections that send one heartbeat after the other")
    queued: int = size(20_000, "jobs that wait while they are assigned")
    fetching_connections: int = size(16, "edge3's simulated workers, which fetch one job at a time")
    taking_workers: int = size(32, "ours, which are offered jobs over channels")
    taking_slots: int = size(16, "slots of each of these")
    finished: int = size(20_000, "jobs that are retained while sync() is timed")
    idle_workers: int = size(100, "workers whose statements are counted")
    idle_seconds: float = size(60.0, "for which they are counted")
    starts_ours: int = size(60, "runs of one task, for the time from queued to started")
    starts_edge3: int = size(20, "the same for edge3, each of which takes seconds")
    mapped: int = size(64, "mapped tasks")
    crowd: int = size(200, "sleeping tasks on one worker")
    fleet: tuple[int, ...] = size(
        (100, 500, 1000, 2000, 4000, 6000), "steps of the fleet, which ends at the first that breaks"
    )
    fleet_seconds: float = size(30.0, "of each half of a step: heartbeats alone, and with jobs")
    jobs_per_second: float = size(20.0, "that flow through the fleet")
    job_seconds: float = size(2.0, "for which each of them runs")
    connects_per_second: float = size(50.0, "while the fleet grows")
    restart_at: int = size(500, "step at which the API process is killed and started again")
    telemetry_rounds: int = size(5, "runs of the mapped tasks in each state of the collector")
    log_mb: int = size(1000, "MiB that one task logs, at 100 MiB/s")
    log_mb_edge3: int = size(100, "the same for edge3, whose time grows with the square")
    log_burst_mb: int = size(4, "MiB that each of many tasks logs at once, of both sides")
    log_tasks: int = size(50, "tasks that log 1 MiB/s each")
    log_seconds: float = size(20.0, "for which they do, and for which as many quiet ones are looked at")
    page_workers: int = size(2000, "workers that the page shows in a browser")
    page_jobs: int = size(20_000, "jobs that it shows")
