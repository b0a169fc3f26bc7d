"""A simulated worker that polls v1."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any
from uuid import uuid4

import requests
from ledger import Key
from served import coordinates, registration, wish
from sites import Site

from edge_otel.state import WorkerState


class PollingSite(Site):
    """A worker of v1."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.url: str | None = None
        self._http = requests.Session()
        self._http.trust_env = False

    @property
    def connected(self) -> bool:
        """Whether the worker has registered."""
        return self.url is not None

    def connect(self, url: str, *, anew: bool = False, cut: bool = True) -> None:
        """Register."""
        self.url = url
        if anew:
            self.ledger.abandoned |= set(self.held)
            self.session = str(uuid4())
            self.held.clear()
        body = registration(**self._report(WorkerState.STARTING), queues=self.queues)
        with suppress(requests.ConnectionError):
            self._call("POST", f"/v1/worker/{self.name}", body)

    def fetch(self) -> None:
        """Ask for a job, and accept it."""
        free = self.slots - sum(job.slots for job in self.held.values() if job.active)
        body = wish(queues=self.queues, free_concurrency=free, session=self.session)
        job = None
        with suppress(requests.ConnectionError, requests.HTTPError):
            job = self._call("POST", f"/v1/jobs/fetch/{self.name}", body)
        if job is not None:
            key = (job["task_instance_id"], job["claim"])
            self._offered(key, job["concurrency_slots"])
            self.held[key].where = coordinates(job)
            self.accept(key)

    def accept(self, key: Key) -> None:
        """Accept an offer, or say so again."""
        job = self.held[key]
        job.phase = "accepting" if job.phase == "offered" else job.phase
        job.said = time.monotonic()
        self.ledger.ask(key)
        if self._report_job(key, "running") and job.phase == "accepting":
            job.phase = "running"

    def end(self, key: Key, state: str) -> None:
        """Report a job's end, or say so again."""
        self.held[key].phase = state
        self.held[key].said = time.monotonic()
        self.ledger.end(key, state)
        if self._report_job(key, state):
            del self.held[key]

    def work(self) -> None:
        """Do a little of everything that brings the jobs here to their ends."""
        self.fetch()
        super().work()

    def _report_job(self, key: Key, state: str) -> bool:
        body = {"task_instance_id": key[0], "claim": key[1]}
        try:
            self._call("PATCH", f"/v1/jobs/state/{self.held[key].where}/{state}", body)
        except requests.HTTPError as error:
            if error.response.status_code == 409:
                self.ledger.stale(key, self.name, self.look(key[0]))
                del self.held[key]
            return False
        except requests.ConnectionError:
            return False
        if state == "running":
            self.ledger.confirm(key, self.name)
        return True

    def _call(self, method: str, path: str, body: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        self.ledger.note(f"{self.name} -> {method} {path} {body}")
        answer = self._http.request(method, f"{self.url}{path}", json=body, headers=headers, timeout=10)
        self.ledger.note(f"{self.name} <- {answer.status_code} {answer.text}")
        answer.raise_for_status()
        return answer.json()
