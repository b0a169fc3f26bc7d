"""What an administrator can have done to workers, and what became of it; the same for the page and the commands."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from edge_otel.wire import MAX_QUEUES, MAX_SLOTS, NO_NUL, Comment, Queue, in_words


def _told(comment: str) -> str:
    if not comment.strip():
        raise ValueError("say why: the comment is empty")
    return comment.strip()


Told = Annotated[Comment, AfterValidator(_told)]
SomeQueue = Annotated[Queue, StringConstraints(strip_whitespace=True, pattern=NO_NUL)]
SomeQueues = Annotated[list[SomeQueue], Field(min_length=1, max_length=MAX_QUEUES)]


def _harmless(queue: str) -> str:
    if not queue.isprintable():
        raise ValueError("the name of a queue has no control characters, and none that turn the direction of text")
    return queue


NewQueue = Annotated[SomeQueue, AfterValidator(_harmless)]
"""One that somebody types, not one that a worker has already."""
NewQueues = Annotated[list[NewQueue], Field(min_length=1, max_length=MAX_QUEUES)]
Slots = Annotated[
    int, Field(ge=1, le=MAX_SLOTS, strict=True), in_words(f"the number of slots is a whole one from 1 to {MAX_SLOTS}")
]


class _Action(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MaintenanceOn(_Action):
    """Finish the jobs and take no more, until maintenance ends."""

    kind: Literal["maintenance_on"] = "maintenance_on"
    comment: Comment | None = None


class MaintenanceOff(_Action):
    """Take jobs again."""

    kind: Literal["maintenance_off"] = "maintenance_off"


class MaintenanceComment(_Action):
    """Change the comment on a maintenance."""

    kind: Literal["maintenance_comment"] = "maintenance_comment"
    comment: Told


class Shutdown(_Action):
    """Finish the jobs and stop."""

    kind: Literal["shutdown"] = "shutdown"


class AddQueues(_Action):
    """Serve these queues, too."""

    kind: Literal["add_queues"] = "add_queues"
    queues: NewQueues


class RemoveQueues(_Action):
    """Do not serve these queues any more."""

    kind: Literal["remove_queues"] = "remove_queues"
    queues: SomeQueues


class SetConcurrency(_Action):
    """Have this many slots."""

    kind: Literal["set_concurrency"] = "set_concurrency"
    slots: Slots


class Remove(_Action):
    """Forget a worker that is gone, with its history."""

    kind: Literal["remove"] = "remove"


Action = Annotated[
    MaintenanceOn | MaintenanceOff | MaintenanceComment | Shutdown | AddQueues | RemoveQueues | SetConcurrency | Remove,
    Field(discriminator="kind"),
]


class Outcome(BaseModel):
    """What became of an action on one worker."""

    worker: str
    done: bool
    """In a dry run: it would be."""
    text: str
    """How the worker stands now, or why it was refused."""
