"""What the server says without having been asked, in the order in which it came."""

from __future__ import annotations

from dataclasses import dataclass

from edge_otel.state import WorkerState
from edge_otel.wire import JobOffer, WorkerReply


@dataclass(frozen=True)
class Wish:
    """The server's wishes have changed since the worker reported ``reported``."""

    reported: WorkerState
    reply: WorkerReply


@dataclass(frozen=True)
class Revoked:
    """A claim is not this worker's any more: its process is to be stopped, and nobody wants its result."""

    id: str
    claim: int
    reason: str
    cancelled: bool = False
    """The server ended it on purpose."""


@dataclass(frozen=True)
class Lost:
    """The channel is closed; the next heartbeat tells why."""


Received = JobOffer | Wish | Revoked | Lost
