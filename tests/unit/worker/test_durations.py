"""Durations on a machine whose clock is put back meanwhile."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest
from edge_worker import starting
from edge_worker.pulse import Pulse

from edge_otel.wire import WorkerReport


class Told:
    """Takes what is told of spans and metrics."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.spans: list[tuple[float, float]] = []

    def heartbeat(self, *values):
        if isinstance(values[0], float):
            self.seconds.append(values[0])
        else:
            self.spans.append(values[1:3])

    def launched(self, *values):
        self.seconds.append(values[0])


@pytest.fixture
def put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock shows an hour less, while a second passes."""
    clocks = {"time": 1e9, "monotonic": 10.0}

    def clock(name: str, step: float):
        def look() -> float:
            clocks[name] += step
            return clocks[name]

        return look

    monkeypatch.setattr(time, "time", clock("time", -3600.0))
    monkeypatch.setattr("edge_worker.pulse.time", SimpleNamespace(time=time.time, monotonic=clock("monotonic", 2.0)))
    monkeypatch.setattr("edge_worker.starting.time", SimpleNamespace(time=time.time, monotonic=clock("monotonic", 2.0)))


@pytest.mark.usefixtures("put_back")
def test_of_a_heartbeat_is_the_time_that_has_passed():
    async def beat(report, carrier):
        return None

    told = Told()
    pulse = Pulse(SimpleNamespace(beat=beat, using="polling"), told, told, lambda: 1.0)
    asyncio.run(pulse.beat(WorkerReport.model_validate({"state": "idle", "sysinfo": {}})))
    assert told.seconds == [2.0]
    assert [end - start for start, end in told.spans] == [2.0]


@pytest.mark.usefixtures("put_back")
def test_of_a_launch_is_the_time_that_has_passed(tmp_path):
    async def launch(folder):
        return SimpleNamespace(pid=1)

    told = Told()
    launcher = SimpleNamespace(launch=launch, mode="zygote")
    site = SimpleNamespace(
        worker="w",
        execution_api_url=lambda: "http://x",
        executors=lambda: None,
        task_env=dict,
        settings=lambda: SimpleNamespace(kill_grace=1, job_nice=0),
        renews=lambda: True,
        contact=tmp_path / "contact",
        launcher=launcher,
        meters=told,
        spans=told,
    )
    folder = SimpleNamespace(order=lambda _: None, log_file=lambda _: None, logs=tmp_path)
    ticket = SimpleNamespace(id="j")
    asyncio.run(starting.start(site, folder, ticket))
    assert told.seconds == [2.0]
