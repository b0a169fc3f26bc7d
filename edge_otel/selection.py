"""Which workers somebody means: by names or globs, queues, states, team, or a part of the name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from fnmatch import translate
from functools import cached_property
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from edge_otel.state import WorkerState
from edge_otel.wire import NO_NUL, Queue, Team

Pattern = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=NO_NUL)]
MAX_NAMES, MAX_GLOBS = 10_000, 64
"""Each glob is tried on each worker: many of them would keep the server busy."""


def _is_glob(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _few_globs(names: list[str]) -> list[str]:
    if sum(map(_is_glob, names)) > MAX_GLOBS:
        raise ValueError(f"there are more than {MAX_GLOBS} globs among the names")
    return names


Names = Annotated[list[Pattern], Field(max_length=MAX_NAMES), AfterValidator(_few_globs)]
"""Names, or globs such as ``site7-*``."""
NameGlobs = Annotated[list[Pattern], Field(max_length=MAX_GLOBS)]
"""The same, as many as fit into an address."""
QueueGlobs = Annotated[list[Queue], Field(max_length=MAX_GLOBS)]
"""Names or globs; a worker of every queue serves each."""
Search = Annotated[str, StringConstraints(max_length=64, pattern=r"^[^\x00]*$")]
"""Part of a name, upper or lower case."""


class Selection(BaseModel):
    """All that is given must be met; of names, queues and states, any one of each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: Names = []
    queues: QueueGlobs = []
    states: list[WorkerState] = []
    team: Team | None = None
    search: Search = ""

    @property
    def given(self) -> bool:
        """Whether anything is asked for; otherwise all workers are meant."""
        return bool(self.names or self.queues or self.states or self.team or self.search)

    def only(self, names: Iterable[str]) -> Selection:
        """Return the same of these workers alone, and of the names that none has: others may match by now."""
        # Not judged anew: they may be more than anybody may ask for.
        return Selection.model_construct(**self.model_dump() | {"names": [*{*names, *self.exact_names}]})

    def matches(self, name: str, queues: Collection[str] | None, team: str | None) -> bool:
        """Return whether a worker is meant, whatever its state. ``queues`` is None for every queue."""
        if self.names and name not in self.exact_names and not self._name_globs.match(name):
            return False
        if self.queues and queues is not None and not any(map(self._is_queue_meant, queues)):
            return False
        return (self.team is None or team == self.team) and self.search.lower() in name.lower()

    def _is_queue_meant(self, queue: str) -> bool:
        if queue not in self._judged:
            self._judged[queue] = queue in self.queues or self._queue_globs.match(queue) is not None
        return self._judged[queue]

    def allows(self, state: str) -> bool:
        """Return whether a worker in this state is meant."""
        return not self.states or state in self.states

    # Once each: a selection of the page has thousands of names, and a fleet thousands of workers with the same queues.

    @cached_property
    def exact_names(self) -> frozenset[str]:
        """The names that are no globs."""
        return frozenset(name for name in self.names if not _is_glob(name))

    @cached_property
    def _name_globs(self) -> re.Pattern[str]:
        return _any_of(filter(_is_glob, self.names))

    @cached_property
    def _judged(self) -> dict[str, bool]:
        return {}

    @cached_property
    def _queue_globs(self) -> re.Pattern[str]:
        return _any_of(self.queues)


def _any_of(globs: Iterable[str]) -> re.Pattern[str]:
    """Return what matches a text that one of the globs means; nothing where there are none."""
    return re.compile("|".join(map(translate, dict.fromkeys(globs))) or r"(?!)")
