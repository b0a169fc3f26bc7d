"""A worker's end of the channel, for tests that speak for it: one real WebSocket."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from rows import queue_job, state_of
from served import FACTS
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from demo import wait
from edge_otel.messages import FROM_SERVER, Accept, Ended, Heartbeat, Hello, Offer, encode
from edge_otel.models.tables import Worker
from edge_otel.state import JobState

PATIENCE = 15.0


class Far:
    """One connection that says what it is told to say."""

    def __init__(self, url: str, token: str, name: str = "w", session: str | None = None, max_queue: int = 16) -> None:
        self.name = name
        self.session = session or str(uuid4())
        self.seq = 0
        self._heard: list[Any] = []
        self.facts: dict[str, Any] = dict(FACTS)
        self._opening = connect(
            url.replace("http", "ws", 1) + "/v2/channel",
            additional_headers={"Authorization": f"Bearer {token}"},
            compression=None,
            proxy=None,
            max_size=None,
            max_queue=max_queue,
        )
        self.socket: ClientConnection = self._opening.__enter__()

    def say(self, message: Any) -> None:
        """Send a message, or any text."""
        self.socket.send(message if isinstance(message, str | bytes) else encode(message))

    def hear(self, *kinds: str, timeout: float = PATIENCE) -> Any:
        """Return the next message, or the next one of these types; what is passed over can be heard later."""
        for message in self._heard:
            if not kinds or message.type in kinds:
                self._heard.remove(message)
                return message
        while True:
            message = FROM_SERVER.read(self.socket.recv(timeout=timeout))
            assert message is not None
            if not kinds or message.type in kinds:
                return message
            self._heard.append(message)

    def hello(self, state: str = "starting", **fields: Any) -> Any:
        """Register, and return the answer."""
        values = {"state": state, "name": self.name, "session": self.session, "sysinfo": self.facts, "jobs": []}
        self.say(Hello.model_validate(values | fields))
        return self.hear()

    def beat(self, state: str = "idle", **fields: Any) -> Any:
        """Send a heartbeat, and return its acknowledgement."""
        self.seq += 1
        values = {"state": state, "seq": self.seq, "sysinfo": self.facts, "session": self.session, "jobs": []}
        self.say(Heartbeat.model_validate(values | fields))
        return self.hear("heartbeat_ack")

    def accept(self, offer: Offer) -> Any:
        """Accept an offer, and return the answer."""
        self.say(Accept(id=offer.task_instance_id, claim=offer.claim))
        return self.hear("confirmed", "stale", "error")

    def end(self, offer: Offer, state: str = "success", **fields: Any) -> Any:
        """Report the end of a job, and return the answer."""
        self.say(Ended.model_validate({"id": offer.task_instance_id, "claim": offer.claim, "state": state, **fields}))
        return self.hear("state_ack", "stale", "error")

    def close(self) -> None:
        """Break the connection."""
        self._opening.__exit__(None, None, None)


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition as long as a test may."""
    wait.wait_for(condition, what, timeout=PATIENCE, pause=0.02)


def queue(database: Any, **fields: Any) -> str:
    """Queue a job, and return its id."""
    with database() as session:
        return queue_job(session, now(), **fields)


def state(database: Any, job_id: str) -> JobState:
    """Return the job's state as stored."""
    with database() as session:
        return state_of(session, job_id)


def stored_as(database: Any, name: str, state: str) -> None:
    """Wait until a worker is stored in this state."""

    def there() -> bool:
        with database() as session:
            worker = session.get(Worker, name)
            return worker is not None and worker.state == state

    wait_for(there, f"{name} to be stored as {state}")


def close_code(far: Far) -> int:
    """Return the close code, when the server has closed the channel."""
    with pytest.raises(ConnectionClosed) as ended:
        while True:
            far.hear()
    assert ended.value.rcvd is not None
    return ended.value.rcvd.code
