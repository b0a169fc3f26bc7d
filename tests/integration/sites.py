"""Simulated workers: they keep a table of jobs as the daemon does, and hold the server to what it says."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from channels import Far
from edge_worker.plan import after_reply
from ledger import Key, Ledger, Row
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from edge_otel.messages import Accept, Decline, Ended, Heartbeat, Hello
from edge_otel.state import TAKES_JOBS, Facts, WorkerState, observe

REPEAT = 0.5
"""Seconds after which a worker at work says again what was not answered."""

REFUSALS = ("SessionReplaced", "TooBusy")
"""What a worker may be told that does nothing wrong: another daemon has its name, or it is to come again later."""

BROKEN = (OSError, EOFError, ConnectionClosed, InvalidMessage, InvalidStatus, TimeoutError)
LookUp = Callable[[str], Row]


@dataclass
class Held:
    """A job in a worker's table."""

    slots: int
    phase: str = "offered"
    """offered, accepting, running, or the state in which it has ended."""
    where: str = ""
    """What a v1 worker puts in the path."""
    said: float = 0.0
    """When the worker said its latest word on the job, by the monotonic clock."""

    @property
    def active(self) -> bool:
        """Whether it holds its slots."""
        return self.phase in ("offered", "accepting", "running")


class Site:
    """A worker's place: one daemon after the other, with one channel after the other."""

    def __init__(self, name: str, token: str, slots: int, queues: list[str] | None, ledger: Ledger, look: LookUp):
        self.name, self.token, self.slots, self.queues = name, token, slots, queues
        self.ledger, self.look = ledger, look
        self.session = str(uuid4())
        self.facts = Facts()
        self.held: dict[Key, Held] = {}
        self.far: Far | None = None
        self.older: list[Far] = []
        """Channels that the worker has left open, and does not read any more."""
        self.reported = {0: WorkerState.STARTING}
        self.welcomed = False
        self.rests = False
        """The server has said, in effect, that it sends no jobs."""

    @property
    def connected(self) -> bool:
        """Whether the worker knows of no break of its channel."""
        return self.far is not None

    # What the worker does.

    def connect(self, url: str, *, anew: bool = False, cut: bool = True) -> None:
        """Open a channel and say hello; ``anew``: as another daemon; ``cut``: break the old one first."""
        if cut:
            self.cut()
        elif self.far is not None:
            self.older.append(self.far)
            self.far = None
        if anew:
            self.ledger.abandoned |= set(self.held)
            self.session, self.facts = str(uuid4()), Facts()
            self.held.clear()
        # What was offered and not taken yet, a daemon does not list.
        self.held = {key: job for key, job in self.held.items() if job.phase != "offered"}
        with suppress(*BROKEN):
            self.far = Far(url, self.token, self.name, self.session)
        self.welcomed = self.rests = False
        state = WorkerState.STARTING if anew else observe(self._now())
        self.reported = {0: state}
        about = {"name": self.name, "session": self.session, "queues": self.queues}
        self._say(Hello.model_validate(self._report(state) | about))

    def cut(self) -> None:
        """Break the channel; what is on its way, in either direction, may be lost."""
        if self.far is not None:
            self.ledger.note(f"{self.name} -- cut")
            _break(self.far)
            self.far, self.welcomed = None, False

    def beat(self) -> None:
        """Send a heartbeat."""
        if self.far is not None:
            self.far.seq += 1
            state = observe(self._now())
            self.reported[self.far.seq] = state
            self._say(Heartbeat.model_validate(self._report(state) | {"seq": self.far.seq}))

    def rest(self, wanted: bool) -> None:
        """Begin or end maintenance of the worker's own accord, and say so."""
        self.facts = Facts(maintenance=wanted)
        self.beat()

    def accept(self, key: Key) -> None:
        """Accept an offer, or say so again."""
        job = self.held[key]
        job.phase = "accepting" if job.phase == "offered" else job.phase
        job.said = time.monotonic()
        self.ledger.ask(key)
        self._say(Accept.model_validate({"id": key[0], "claim": key[1]}))

    def decline(self, key: Key) -> None:
        """Decline an offer."""
        del self.held[key]
        self._say(Decline.model_validate({"id": key[0], "claim": key[1]}))

    def end(self, key: Key, state: str) -> None:
        """Report a job's end, or say so again."""
        self.held[key].phase = state
        self.held[key].said = time.monotonic()
        self.ledger.end(key, state)
        self.claim_end(key, state)

    def claim_end(self, key: Key, state: str) -> None:
        """Report the end of any job, rightly or not."""
        self._say(Ended.model_validate({"id": key[0], "claim": key[1], "state": state}))

    def repeat(self) -> None:
        """Say again what was not answered."""
        for key, job in list(self.held.items()):
            if job.phase == "accepting":
                self.accept(key)
            elif not job.active:
                self.end(key, job.phase)

    def work(self) -> None:
        """Do a little of everything that brings the jobs here to their ends."""
        self.hear(0.02)
        for key, job in list(self.held.items()):
            if job.phase == "running":
                self.end(key, "success")
            elif job.phase == "offered":
                self.accept(key)
            elif time.monotonic() - job.said > REPEAT:
                self.accept(key) if job.active else self.end(key, job.phase)

    def _say(self, message: Any) -> None:
        if self.far is not None:
            self.ledger.note(f"{self.name} -> {_brief(message)}")
            try:
                self.far.say(message)
            except BROKEN:
                self.cut()

    def _now(self) -> Facts:
        return Facts(sum(job.active for job in self.held.values()), False, self.facts.maintenance)

    def _report(self, state: WorkerState) -> dict[str, Any]:
        jobs = [
            {"id": job_id, "claim": claim, "slots": job.slots if job.active else 0}
            for (job_id, claim), job in self.held.items()
            if job.phase != "offered"
        ]
        facts = {"airflow_version": "3.3.2", "edge_provider_version": "0.1.0", "concurrency": self.slots}
        return {"state": state, "sysinfo": facts, "jobs": jobs, "session": self.session}

    # What the worker is told.

    def hear(self, timeout: float = 0.0) -> bool:
        """Read what has come, the first of it within ``timeout`` seconds; return whether there was something."""
        heard = False
        while self.far is not None:
            try:
                message = self.far.hear(timeout=timeout)
            except TimeoutError:
                break
            except BROKEN:
                self.cut()
                break
            heard, timeout = True, 0.0
            self._heed(message)
        return heard

    def _heed(self, message: Any) -> None:
        self.ledger.note(f"{self.name} <- {_brief(message)}")
        key = (str(getattr(message, "id", "")), getattr(message, "claim", -1))
        match message.type:
            case "job":
                self._offered((str(message.task_instance_id), message.claim), message.concurrency_slots)
            case "confirmed":
                self.ledger.confirm(key, self.name)
                if key in self.held and self.held[key].phase == "accepting":
                    self.held[key].phase = "running"
            case "state_ack":
                self.ledger.must(
                    not self.held[key].active if key in self.held else True, f"{key} was acknowledged, and runs"
                )
                self.held.pop(key, None)
            case "stale" | "cancel":
                self.ledger.stale(key, self.name, self.look(key[0]))
                self.held.pop(key, None)
            case "welcome" | "heartbeat_ack" | "settings":
                self.welcomed = True
                self.rests = message.state not in TAKES_JOBS
                seq = getattr(message, "seq", 0)
                facts = after_reply(self._now(), self.reported[seq], message.state)
                self.facts = Facts(maintenance=facts.maintenance)
            case "error":
                self.ledger.must(message.error in REFUSALS, f"{self.name} was told {message}")

    def _offered(self, key: Key, slots: int) -> None:
        self.ledger.offer(key, self.name)
        self.ledger.must(not self.rests, f"{key} was offered to {self.name}, which the server had told to take none")
        used = sum(job.slots for job in self.held.values() if job.active)
        self.ledger.must(
            used + slots <= self.slots, f"{key} with {slots} slots was offered to {self.name}, with {self.held}"
        )
        self.held[key] = Held(slots)


def _brief(message: Any) -> str:
    fields = ("seq", "state", "id", "task_instance_id", "claim", "concurrency_slots", "jobs", "error", "session")
    said = {name: getattr(message, name) for name in fields if getattr(message, name, None) is not None}
    return " ".join([message.type, *(f"{name}={value}" for name, value in said.items())])


def _break(far: Far) -> None:
    with suppress(OSError):
        far.socket.socket.shutdown(socket.SHUT_RDWR)
    with suppress(*BROKEN):
        far.close()


def closed_within(far: Far, seconds: float) -> bool:
    """Return whether the server closes a channel in this time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            far.hear(timeout=0.1)
        except TimeoutError:
            continue
        except BROKEN:
            _break(far)
            return True
    return False
