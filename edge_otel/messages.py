"""The channel's messages: one JSON object each, told apart by ``type``.

Either side may be newer: an unknown type, or an unknown field, is passed over.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError

from edge_otel.wire import Claim, ErrorBody, JobOffer, JobOutcome, Session, WorkerName, WorkerReply, WorkerReport

PROTOCOL = 1
"""Raised when an old side could no longer understand a new one."""

MAX_MESSAGE = 1024 * 1024
"""Bytes of one message from a worker."""

CLOSED = 4000
"""A refusal closes the channel with this plus its HTTP status; the ``error`` message before it says the rest."""

RESTARTING = 1012
"""Close code of a server that goes away in order."""

Sequence = Annotated[int, Field(ge=0, lt=2**53)]
TraceField = Annotated[str, StringConstraints(max_length=512)]


class Message(BaseModel):
    """What every message may carry: the W3C context that it belongs to."""

    traceparent: TraceField | None = None
    tracestate: TraceField | None = None


class _AboutJob(Message):
    id: UUID
    claim: Claim


class Hello(WorkerReport, Message):
    """The worker's first message: registration. ``jobs`` are those it runs, or has not reported yet."""

    type: Literal["hello"] = "hello"
    protocol: Annotated[int, Field(ge=1)] = PROTOCOL
    name: WorkerName
    session: Session


class Heartbeat(WorkerReport, Message):
    """Sent at every interval, and at once when state or jobs have changed."""

    type: Literal["heartbeat"] = "heartbeat"
    seq: Sequence


class Accept(_AboutJob):
    """Answer to an offer. The process starts when it is ``confirmed``; repeated until then."""

    type: Literal["accept"] = "accept"


class Decline(_AboutJob):
    """Answer to an offer: back to the queue with it."""

    type: Literal["decline"] = "decline"
    reason: Annotated[str, StringConstraints(max_length=1024)] = ""


class Ended(_AboutJob, JobOutcome):
    """A job's end; repeated until it is acknowledged."""

    type: Literal["job_state"] = "job_state"
    state: Literal["success", "failed"]


class Welcome(WorkerReply, Message):
    """Answer to ``hello``: always with settings."""

    type: Literal["welcome"] = "welcome"
    protocol: int = PROTOCOL


class HeartbeatAck(WorkerReply, Message):
    """Answer to the heartbeat of that number."""

    type: Literal["heartbeat_ack"] = "heartbeat_ack"
    seq: Sequence


class Changed(WorkerReply, Message):
    """The server's wishes have changed. ``seq``: the last heartbeat that it knew of, 0 before the first."""

    type: Literal["settings"] = "settings"
    seq: Sequence


class Offer(JobOffer, Message):
    """A job for this worker."""

    type: Literal["job"] = "job"


class Confirmed(_AboutJob):
    """Answer to ``accept``: start the process."""

    type: Literal["confirmed"] = "confirmed"


class StateAck(_AboutJob):
    """Answer to ``job_state``: it is stored."""

    type: Literal["state_ack"] = "state_ack"


class Stale(_AboutJob):
    """Not this worker's job any more: nothing was changed, its process is to be stopped."""

    type: Literal["stale"] = "stale"


class Cancel(_AboutJob):
    """Stop this job; nobody wants its result."""

    type: Literal["cancel"] = "cancel"
    reason: str = ""


class Error(ErrorBody, Message):
    """What a worker sent was refused; after ``hello``, and where a close follows, the whole channel is."""

    type: Literal["error"] = "error"


class Bye(Message):
    """This replica goes away: connect again after so many seconds, to whoever answers."""

    type: Literal["bye"] = "bye"
    reason: str
    reconnect_after: float = 0.0


FromWorker = Annotated[Hello | Heartbeat | Accept | Decline | Ended, Field(discriminator="type")]
FromServer = Annotated[
    Welcome | HeartbeatAck | Changed | Offer | Confirmed | StateAck | Stale | Cancel | Error | Bye,
    Field(discriminator="type"),
]

T = TypeVar("T")


class Decoder(Generic[T]):
    """Reads the messages of one direction."""

    def __init__(self, messages: Any) -> None:
        self._adapter: TypeAdapter[T] = TypeAdapter(messages)

    def read(self, text: str | bytes) -> T | None:
        """Return the message; None for one of a type that is not known here. Raises pydantic's ValidationError."""
        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            if any(problem["type"] == "union_tag_invalid" for problem in error.errors(include_input=False)):
                return None
            raise


FROM_WORKER: Decoder[Hello | Heartbeat | Accept | Decline | Ended] = Decoder(FromWorker)
FROM_SERVER: Decoder[Welcome | HeartbeatAck | Changed | Offer | Confirmed | StateAck | Stale | Cancel | Error | Bye] = (
    Decoder(FromServer)
)


def encode(message: BaseModel) -> str:
    """Return a message as it is sent."""
    return message.model_dump_json(exclude_none=True)
