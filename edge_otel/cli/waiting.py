"""``--wait``: returns when workers have done what was asked of them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from edge_otel.actions import Action
from edge_otel.cli.command import fail
from edge_otel.cli.output import flush, tell
from edge_otel.models import fleet_view
from edge_otel.models.session import new_session
from edge_otel.selection import MAX_NAMES, Selection
from edge_otel.state import STOPPING, TAKES_JOBS, WorkerState

ON_THE_WAY = {
    "maintenance_on": {WorkerState.MAINTENANCE_REQUEST, WorkerState.MAINTENANCE_PENDING, *STOPPING},
    "maintenance_off": {WorkerState.MAINTENANCE_EXIT},
    "shutdown": {*STOPPING},
}
"""States between a wish and its end. Any other ends the wait."""

OBEYED: dict[str, set[WorkerState | None]] = {
    "maintenance_on": {WorkerState.MAINTENANCE_MODE, WorkerState.OFFLINE_MAINTENANCE},
    "maintenance_off": {*TAKES_JOBS, WorkerState.OFFLINE},
    # It may have been started again, or removed.
    "shutdown": {*TAKES_JOBS, WorkerState.OFFLINE, WorkerState.OFFLINE_MAINTENANCE, None},
}
"""What the wish comes to. Else the worker was lost, or somebody wanted otherwise meanwhile."""

LOOK = 0.5
"""Seconds between looks."""
SHOWN = 10
"""Names in a message."""


def await_obedience(action: Action, names: Sequence[str], timeout: float | None, output: str) -> None:
    """Return when all have done it; end the command where one has done otherwise, or after ``timeout`` seconds."""
    until = time.monotonic() + (math.inf if timeout is None else timeout)
    open_: dict[str, str] = dict.fromkeys(names, "")
    astray: dict[str, str] = {}
    while True:
        for name, state in _states(list(open_)).items():
            stands = "removed" if state is None else state.value
            if state is not None and state in ON_THE_WAY[action.kind]:
                open_[name] = stands
                continue
            del open_[name]
            if state not in OBEYED[action.kind]:
                astray[name] = stands
            if output == "text":
                tell(f"{name}: {stands}")
        late = bool(open_) and time.monotonic() >= until
        if late or not open_:
            break
        flush()
        time.sleep(LOOK)
    left = astray | open_
    if left:
        shown = ", ".join(f"{name} is in state {state}" for name, state in list(left.items())[:SHOWN])
        within = f" within {timeout:g} s" if late else ""
        fail(f"{len(left)} of {len(names)} workers have not done it{within}: {shown}")


def _states(names: list[str]) -> dict[str, WorkerState | None]:
    """Return the state of each, None for one that was removed."""
    states: dict[str, WorkerState | None] = dict.fromkeys(names)
    for start in range(0, len(names), MAX_NAMES):
        with new_session() as session:
            found = fleet_view.select_workers(session, Selection(names=names[start : start + MAX_NAMES]))
        states |= {worker.name: WorkerState(worker.state) for worker in found}
    return states
