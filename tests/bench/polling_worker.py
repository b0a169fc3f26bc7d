"""One simulated worker that polls v1, by the calls that edge3's makes, over a connection that is kept open."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from tests.bench.http_load import Calls


class PollingWorker:
    """One worker as v1 sees it."""

    def __init__(self, url: str, name: str, authorize: Callable[[str], str], provider: str) -> None:
        self._name = name
        self._calls = Calls(url, authorize)
        self._sysinfo = {
            "status": 20,
            "airflow_version": version("apache-airflow"),
            "edge_provider_version": version(provider),
            "concurrency": 8,
            "free_concurrency": 8,
        }

    def register(self) -> None:
        """Announce the worker."""
        self._calls.call("POST", f"worker/{self._name}", self._report("starting"))

    def heartbeat(self) -> None:
        """Report that it is idle."""
        self._calls.call("PATCH", f"worker/{self._name}", self._report("idle"))

    def fetch(self) -> dict[str, Any] | None:
        """Return a job, or None where there is none."""
        body = {"queues": ["default"], "free_concurrency": 8, "supports_task_instance_uuid": True}
        job: dict[str, Any] | None = self._calls.call("POST", f"jobs/fetch/{self._name}", body)
        return job

    def report(self, job: dict[str, Any], state: str) -> None:
        """Report a job's state."""
        key = "/".join(str(job[part]) for part in ("dag_id", "task_id", "run_id", "try_number", "map_index"))
        self._calls.call("PATCH", f"jobs/state/{key}/{state}", {"task_instance_id": job["task_instance_id"]})

    def take(self, *states: str) -> None:
        """Fetch a job and report these states of it, one after the other."""
        job = self.fetch()
        if job is None:
            raise RuntimeError("No job was left: queue more.")
        for state in states:
            self.report(job, state)

    def close(self) -> None:
        """Close the connection."""
        self._calls.close()

    def _report(self, state: str) -> dict[str, Any]:
        return {"state": state, "jobs_active": 0, "queues": ["default"], "sysinfo": self._sysinfo}


def polling_workers(
    count: int, url: str, authorize: Callable[[str], str], provider: str, prefix: str
) -> list[PollingWorker]:
    """Return registered workers."""
    workers = [PollingWorker(url, f"{prefix}-{number:05}", authorize, provider) for number in range(1, count + 1)]
    for worker in workers:
        worker.register()
    return workers
