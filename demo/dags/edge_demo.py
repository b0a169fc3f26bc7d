"""The example: three machines are measured, one gauge needs a second try, one task is talkative."""

from __future__ import annotations

import socket
from datetime import timedelta

from airflow.sdk import dag, get_current_context, task

LINES = 2000


@dag(schedule=None, catchup=False, tags=["edge-otel"])
def edge_demo():
    @task
    def machines() -> list[str]:
        return ["press", "lathe", "oven"]

    @task
    def measure(machine: str) -> int:
        print(f"measuring {machine} beside {socket.gethostname()}")
        return len(machine)

    @task(retries=1, retry_delay=timedelta(seconds=1))
    def calibrate() -> str:
        attempt = get_current_context()["ti"].try_number
        if attempt == 1:
            raise RuntimeError("The gauge does not answer; the second try will find it awake.")
        return f"calibrated at try {attempt}"

    @task
    def inspect() -> int:
        for number in range(1, LINES + 1):
            print(f"reading {number} of {LINES}")
        return LINES

    @task
    def report(readings: list[int], calibration: str, lines: int) -> None:
        print(f"sum {sum(readings)}, {calibration}, {lines} readings logged")

    report(measure.expand(machine=machines()), calibrate(), inspect())


edge_demo()
