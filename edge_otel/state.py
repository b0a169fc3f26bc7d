"""Worker and job states, and how they change: pure, and the same on both sides of the wire.

One turn of the worker's wheel::

    worker   observe(facts)            -> reported
    server   settle(stored, reported)  -> stored
    worker   obey(facts, stored)       -> facts
    silence  expire(stored)            -> stored
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class WorkerState(str, Enum):
    """State of an edge worker; the values are those that users of the Edge provider know."""

    STARTING = "starting"
    IDLE = "idle"
    RUNNING = "running"
    SHUTDOWN_REQUEST = "shutdown request"
    TERMINATING = "terminating"
    OFFLINE = "offline"
    UNKNOWN = "unknown"
    MAINTENANCE_REQUEST = "maintenance request"
    MAINTENANCE_PENDING = "maintenance pending"
    MAINTENANCE_MODE = "maintenance mode"
    MAINTENANCE_EXIT = "maintenance exit"
    OFFLINE_MAINTENANCE = "offline maintenance"

    __str__ = str.__str__


GONE = frozenset({WorkerState.OFFLINE, WorkerState.OFFLINE_MAINTENANCE, WorkerState.UNKNOWN})
"""Not connected: gets no job, and the name is free to be taken."""

IN_MAINTENANCE = frozenset(
    {
        WorkerState.MAINTENANCE_REQUEST,
        WorkerState.MAINTENANCE_PENDING,
        WorkerState.MAINTENANCE_MODE,
        WorkerState.OFFLINE_MAINTENANCE,
    }
)
"""In maintenance or asked to be: the comment is kept, and the worker comes back in maintenance."""

STOPPING = frozenset({WorkerState.SHUTDOWN_REQUEST, WorkerState.TERMINATING})
"""On its way out. A maintenance that was on, or asked for, is not over by that."""

TAKES_JOBS = frozenset({WorkerState.STARTING, WorkerState.IDLE, WorkerState.RUNNING})
"""The only stored states in which the server hands out jobs."""


@dataclass(frozen=True)
class Facts:
    """What a worker knows of itself. ``jobs`` counts those that hold a slot."""

    jobs: int = 0
    draining: bool = False
    maintenance: bool = False


def observe(facts: Facts) -> WorkerState:
    """Return the state that a worker with these facts reports."""
    if facts.jobs:
        if facts.draining:
            return WorkerState.TERMINATING
        return WorkerState.MAINTENANCE_PENDING if facts.maintenance else WorkerState.RUNNING
    if facts.draining:
        return WorkerState.OFFLINE_MAINTENANCE if facts.maintenance else WorkerState.OFFLINE
    return WorkerState.MAINTENANCE_MODE if facts.maintenance else WorkerState.IDLE


def settle(stored: WorkerState, reported: WorkerState) -> WorkerState:
    """Return what the server stores when ``reported`` arrives: an open request wins until it is obeyed.

    For every pair this gives what edge3 5.1.0 gives, so that mixed fleets behave alike.
    """
    S = WorkerState
    if stored is S.MAINTENANCE_REQUEST and reported not in (S.MAINTENANCE_PENDING, S.MAINTENANCE_MODE):
        return S.MAINTENANCE_REQUEST
    if reported is S.STARTING and stored in IN_MAINTENANCE:
        return S.MAINTENANCE_REQUEST
    if stored is S.MAINTENANCE_EXIT and reported is S.MAINTENANCE_PENDING:
        return S.RUNNING
    if stored is S.MAINTENANCE_EXIT and reported is S.MAINTENANCE_MODE:
        return S.IDLE
    if stored is S.SHUTDOWN_REQUEST and reported not in GONE:
        return S.SHUTDOWN_REQUEST
    return reported


def obey(facts: Facts, stored: WorkerState) -> Facts:
    """Return the worker's facts after it has learnt what the server stores."""
    if stored is WorkerState.SHUTDOWN_REQUEST:
        return replace(facts, draining=True)
    if stored is WorkerState.MAINTENANCE_REQUEST:
        return replace(facts, maintenance=True)
    if stored in (WorkerState.IDLE, WorkerState.RUNNING, WorkerState.MAINTENANCE_EXIT):
        return replace(facts, maintenance=False)
    return facts


def expire(stored: WorkerState) -> WorkerState:
    """Return what a worker's silence makes of the stored state.

    Maintenance outlives silence. A shutdown request does not: it was meant for the daemon that went silent,
    not for the next one that starts under its name.
    """
    if stored in GONE:
        return stored
    return WorkerState.OFFLINE_MAINTENANCE if stored in IN_MAINTENANCE else WorkerState.UNKNOWN


class JobState(str, Enum):
    """State of a job: one workload on its way to, on, and back from a worker."""

    QUEUED = "queued"
    ASSIGNED = "assigned"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    LOST = "lost"

    __str__ = str.__str__


FINISHED = frozenset({JobState.SUCCESS, JobState.FAILED, JobState.LOST})
"""A finished job stays finished."""


class Verdict(Enum):
    """What a report about a job does to the stored row."""

    STORED = "stored"
    """The row changes to what was reported."""
    REPEATED = "repeated"
    """Known already, or too late to matter: acknowledged, nothing changes."""
    STALE = "stale"
    """Not this worker's claim any more: nothing changes, and the worker stops that process."""


def judge(stored: JobState, stored_claim: int, reported: JobState, claim: int) -> Verdict:
    """Return what becomes of a worker's report that job ``claim`` is now ``reported``.

    A worker reports ``running`` (its acceptance of the offer), ``success``, ``failed``, or ``queued`` (it declines).
    """
    if claim != stored_claim or stored is JobState.QUEUED:
        return Verdict.STALE
    if stored in FINISHED:
        return Verdict.REPEATED if reported in FINISHED else Verdict.STALE
    if reported is JobState.QUEUED:
        return Verdict.STORED if stored is JobState.ASSIGNED else Verdict.STALE
    if reported is stored:
        return Verdict.REPEATED
    return Verdict.STORED if reported in FINISHED or stored is JobState.ASSIGNED else Verdict.STALE
