"""One simulated worker: a real channel that speaks as the daemon does, and jobs that only take time."""

from __future__ import annotations

import asyncio
import json
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any
from uuid import uuid4

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from edge_otel.messages import Hello, encode
from tests.bench.tally import Tally

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between attempts to connect: full jitter between nothing and a bound that doubles, as in the daemon."""
NEWS_GAP = 0.25
"""Seconds for which changes of the jobs are gathered into one heartbeat, as in the daemon."""
REPEAT = 10.0
"""Seconds after which an unanswered accept or end is said again."""
OPEN_TIMEOUT = 30.0


@dataclass(frozen=True)
class Habits:
    """What all workers of a fleet do alike. Times are in seconds."""

    slots: int = 8
    job_seconds: float | None = 2.0
    """How long a job runs; None: for ever."""
    flood: bool = False
    """Send the next heartbeat as soon as the last one is answered."""


@dataclass
class _Job:
    claim: int
    queued_at: float
    state: str = "accept"
    """What the server has not answered yet, as a type of message; ``running`` in between."""
    said_at: float = 0.0


class SimulatedWorker:
    """Connects until it is stopped."""

    def __init__(self, name: str, url: str, token: str, habits: Habits, tally: Tally) -> None:
        self.name = name
        self.connected = False
        self._url = url.replace("http", "ws", 1) + "/v2/channel"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._habits = habits
        self._tally = tally
        self._session = str(uuid4())
        self._sysinfo = {
            "airflow_version": version("apache-airflow"),
            "edge_provider_version": version("edge-otel"),
            "concurrency": habits.slots,
        }
        self._facts = json.dumps(self._sysinfo)
        self._jobs: dict[str, _Job] = {}
        self._websocket: ClientConnection | None = None
        self._seq = 0
        self._sent: dict[int, float] = {}
        self._interval = 30.0
        self._news = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Keep a channel open until cancelled."""
        failures = 0
        while True:
            pause = 0.0
            try:
                async with connect(
                    self._url,
                    additional_headers=self._headers,
                    compression=None,
                    ping_interval=None,
                    open_timeout=OPEN_TIMEOUT,
                    close_timeout=1,
                    max_size=None,
                    proxy=None,
                ) as websocket:
                    pause = await self._serve(websocket)
                    failures = 0
            except InvalidStatus as refusal:
                self._tally.refused += 1
                pause = float(refusal.response.headers.get("Retry-After", "0"))
            except (OSError, TimeoutError, ConnectionClosed, InvalidHandshake, EOFError):
                self._tally.broken += 1
            finally:
                self._websocket = None
                self.connected = False
            bound = min(LONGEST_PAUSE, FIRST_PAUSE * 2**failures)
            failures = min(failures + 1, 10)
            await asyncio.sleep(pause + random.uniform(0, bound))

    async def _serve(self, websocket: ClientConnection) -> float:
        """Speak until the server ends it; return for how many seconds it asked to stay away."""
        self._sent.clear()
        hello = {"state": "starting", "sysinfo": self._sysinfo, "name": self.name, "session": self._session}
        active = self._active()
        await websocket.send(encode(Hello.model_validate({**hello, "jobs_active": len(active), "jobs": active})))
        self._websocket = websocket
        beating = asyncio.create_task(self._beat())
        away = 0.0
        try:
            async for text in websocket:
                message = json.loads(text)
                if message["type"] == "bye":
                    away = float(message.get("reconnect_after", 0))
                else:
                    self._take(message)
        finally:
            beating.cancel()
        self._tally.broken += 1
        return away

    def _take(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "heartbeat_ack":
                sent = self._sent.pop(message["seq"], None)
                if sent is not None:
                    self._tally.heartbeats.append(time.perf_counter() - sent)
                if self._habits.flood:
                    self._send_heartbeat()
            case "job":
                self._offered(message)
            case "confirmed":
                self._confirmed(message)
            case "state_ack":
                self._tally.ended.add(message["id"])
                self._drop(message)
            case "stale" | "cancel":
                self._tally.stale += 1
                self._drop(message)
            case "welcome":
                self._welcomed(message)
            case "settings" if message.get("settings"):
                self._interval = message["settings"]["heartbeat_interval"]
            case "error":
                self._tally.errors.append(f"{message['error']}: {message['detail']}")

    def _welcomed(self, message: dict[str, Any]) -> None:
        self._interval = message["settings"]["heartbeat_interval"]
        self._tally.welcomed += 1
        self.connected = True
        for job_id, job in self._jobs.items():
            self._say(job_id, job)
        self._send_heartbeat()

    def _offered(self, message: dict[str, Any]) -> None:
        job_id = message["task_instance_id"]
        known = self._jobs.get(job_id)
        if known is not None and known.claim >= message["claim"]:
            return
        queued_at = datetime.fromisoformat(message["queued_at"]).timestamp()
        self._tally.offered.append(time.time() - queued_at)
        self._jobs[job_id] = job = _Job(message["claim"], queued_at)
        self._say(job_id, job)
        self._news.set()

    def _confirmed(self, message: dict[str, Any]) -> None:
        job_id, claim = message["id"], message["claim"]
        job = self._jobs.get(job_id)
        if job is None or job.claim != claim or job.state != "accept":
            return
        self._tally.confirmed.append(time.time() - job.queued_at)
        self._tally.holders[job_id].add((self.name, claim))
        job.state = "running"
        if self._habits.job_seconds is not None:
            asyncio.get_running_loop().call_later(self._habits.job_seconds, self._end, job_id, job)

    def _end(self, job_id: str, job: _Job) -> None:
        if self._jobs.get(job_id) is job:
            job.state = "job_state"
            self._say(job_id, job)
            self._news.set()

    def _drop(self, message: dict[str, Any]) -> None:
        job = self._jobs.get(message["id"])
        if job is not None and job.claim == message["claim"]:
            del self._jobs[message["id"]]
            self._news.set()

    def _say(self, job_id: str, job: _Job) -> None:
        """Send what the server has not answered."""
        job.said_at = time.monotonic()
        about = f'"id":"{job_id}","claim":{job.claim}'
        if job.state == "accept":
            self._send(f'{{"type":"accept",{about}}}')
        elif job.state == "job_state":
            self._send(f'{{"type":"job_state",{about},"state":"success","exit_code":0,"log_length":0}}')

    def _active(self) -> list[dict[str, Any]]:
        return [
            {"id": job_id, "claim": job.claim, "slots": int(job.state != "job_state")}
            for job_id, job in self._jobs.items()
        ]

    def _send_heartbeat(self) -> None:
        self._news.clear()
        self._seq += 1
        self._sent[self._seq] = time.perf_counter()
        active = self._active()
        jobs = json.dumps(active) if active else "[]"
        running = sum(job["slots"] for job in active)
        self._send(
            f'{{"type":"heartbeat","seq":{self._seq},"state":"{"running" if running else "idle"}",'
            f'"jobs_active":{running},"session":"{self._session}","sysinfo":{self._facts},"jobs":{jobs}}}'
        )

    async def _beat(self) -> None:
        """Send heartbeats when they are due, and soon after the jobs have changed."""
        # At a random phase: a fleet does not beat as one.
        due = time.monotonic() + random.random() * self._interval
        while True:
            try:
                async with asyncio.timeout(max(0.0, due - time.monotonic())):
                    await self._news.wait()
                await asyncio.sleep(NEWS_GAP)
            except TimeoutError:
                pass
            due = time.monotonic() + self._interval
            if not self.connected or self._habits.flood:
                continue
            self._send_heartbeat()
            for job_id, job in self._jobs.items():
                if time.monotonic() - job.said_at > REPEAT:
                    self._say(job_id, job)

    def _send(self, text: str) -> None:
        websocket = self._websocket
        if websocket is None:
            return

        async def send() -> None:
            with suppress(ConnectionClosed):
                await websocket.send(text)

        task = asyncio.create_task(send())
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
