"""The daemon's decisions: pure functions of facts, with the time and the random draw as arguments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from edge_otel.state import Facts, WorkerState, obey

BACKOFF_FIRST = 0.5
BACKOFF_LAST = 30.0
"""Seconds; the range of pauses after failed calls."""

_REPORTED_IN_MAINTENANCE = frozenset(
    {WorkerState.MAINTENANCE_PENDING, WorkerState.MAINTENANCE_MODE, WorkerState.OFFLINE_MAINTENANCE}
)


class Answer(Enum):
    """What an HTTP answer means to the daemon."""

    GOOD = "good"
    LATER = "later"
    """Try the same call again, with growing pauses."""
    NOT_ALLOWED = "not allowed"
    STALE = "stale"
    FORGOTTEN = "forgotten"
    REPLACED = "replaced"
    REWIND = "rewind"
    REFUSED = "refused"
    NO_CHANNEL = "no channel"
    """The upgrade to a WebSocket does not work on this way, whatever the reason."""


_BY_NAME = {
    "StaleClaim": Answer.STALE,
    "JobNotFound": Answer.STALE,
    "WorkerNotFound": Answer.FORGOTTEN,
    "SessionReplaced": Answer.REPLACED,
}


def read_answer(status: int, error: str | None) -> Answer:
    """Return what a status and the error name in its body (None where the body is not ours) mean.

    A 404 or 409 without an error name was not said by the Edge API but by a proxy or a wrong route on the way,
    and must not end a job.
    """
    if 200 <= status < 300:
        return Answer.GOOD
    if status == 416:
        return Answer.REWIND
    if status in (401, 403):
        return Answer.NOT_ALLOWED
    if status in (408, 425, 429) or status >= 500 or status < 400:
        return Answer.LATER
    if error is None:
        return Answer.LATER
    return _BY_NAME.get(error, Answer.REFUSED)


def read_upgrade(status: int, error: str | None) -> Answer:
    """Return what an HTTP answer means that came instead of a WebSocket; arguments as of ``read_answer``.

    A bare 403 is what a server says that has no channel. Should it be about the token after all, v1 tells.
    """
    meaning = read_answer(status, error)
    if meaning is Answer.NOT_ALLOWED and error is not None:
        return meaning
    return Answer.LATER if status in (408, 425, 429) or status >= 500 else Answer.NO_CHANNEL


class Delivery(Enum):
    """What the answer to telemetry means to the outbox."""

    TAKEN = "taken"
    LATER = "later"
    NOT_ALLOWED = "not allowed"
    NO_COLLECTOR = "no collector"
    BAD = "bad"
    """Some of it is not what the far end can take, now or later."""


def read_delivery(status: int | None) -> Delivery:
    """Return what the status of an answer to telemetry means; None where there was none."""
    if status is None:
        return Delivery.LATER
    if 200 <= status < 300:
        return Delivery.TAKEN
    if status in (401, 403):
        return Delivery.NOT_ALLOWED
    if status == 404:
        return Delivery.NO_COLLECTOR
    return Delivery.BAD if 400 <= status < 500 and status not in (408, 425, 429) else Delivery.LATER


def read_retry_after(text: str | None) -> float | None:
    """Return the seconds of a Retry-After header, at most 300; None where it holds none (a date is not understood)."""
    return min(float(text), 300.0) if text and text.isdigit() else None


def returning(after: float, draw: float) -> float:
    """Return the pause when the server has asked for ``after`` seconds: never less, and spread, for all were asked."""
    return after + draw * (1 + after / 2)


def backoff(attempt: int, draw: float) -> float:
    """Return the pause in seconds after failure number ``attempt`` (from 0): full jitter, ``draw`` within 0 and 1."""
    return draw * float(min(BACKOFF_LAST, BACKOFF_FIRST * 2 ** min(attempt, 16)))


def jittered(interval: float, draw: float) -> float:
    """Return a pause around ``interval``, within a quarter of it, so that a fleet spreads out."""
    return interval * (0.75 + draw / 2)


STEADY = 30.0
"""Seconds after which an open channel counts as one that works."""

CHANNEL_RETRY_LAST = 600.0
"""Seconds between attempts at the channel while v1 is polled; they grow up to this."""

_GIVE_UP = 3.0


class Miss(float, Enum):
    """Why the channel could not be opened, as the number of failures that it counts for; after three v1 is polled."""

    BROKEN = 1.0
    PACED = 0.25
    """The server said when to come again: it is there, and busy."""
    IMPOSSIBLE = 3.0


@dataclass(frozen=True)
class Route:
    """What is known of the ways to the server. Times are those of a monotonic clock."""

    transport: str
    """The setting: auto, channel or polling."""
    retry: float = 60.0
    """Seconds until the channel is tried again after it was given up once."""
    failures: float = 0.0
    """To open the channel, in a row."""
    flaps: int = 0
    """Channels in a row that opened and soon broke, as behind some proxies."""
    given_up: int = 0
    """How often in a row the channel was given up."""
    due: float = 0.0
    """When the channel may be tried."""


def tries_channel(route: Route, now: float) -> bool:
    """Return whether the channel is to be tried before v1."""
    return route.transport == "channel" or (route.transport == "auto" and now >= route.due)


def missed(route: Route, miss: Miss, now: float, draw: float) -> Route:
    """Return the route after the channel could not be opened."""
    return _judged(replace(route, failures=route.failures + miss), now, draw)


def opened(route: Route) -> Route:
    """Return the route after the channel has opened."""
    return replace(route, failures=0.0)


def closed(route: Route, lived: float, orderly: bool, now: float, draw: float) -> Route:
    """Return the route after a channel that was open for ``lived`` seconds has closed."""
    if lived >= STEADY:
        return replace(route, flaps=0, given_up=0)
    return route if orderly else _judged(replace(route, flaps=route.flaps + 1), now, draw)


def unanswered(route: Route) -> Route:
    """Return the route after v1 did not work either: the server is down, and the channel is again tried first."""
    return replace(route, given_up=0, due=0.0)


def _judged(route: Route, now: float, draw: float) -> Route:
    if route.transport != "auto" or max(route.failures, route.flaps) < _GIVE_UP:
        return route
    pause = min(CHANNEL_RETRY_LAST, route.retry * 2 ** min(route.given_up, 16))
    return replace(route, given_up=route.given_up + 1, due=now + jittered(pause, draw))


def after_reply(facts: Facts, reported: WorkerState, stored: WorkerState) -> Facts:
    """Return the facts after the server's answer to a report of state ``reported``.

    Maintenance that began while the report was on its way is not ended by the answer to it.
    """
    obeyed = obey(facts, stored)
    if facts.maintenance and not obeyed.maintenance and reported not in _REPORTED_IN_MAINTENANCE:
        return replace(obeyed, maintenance=True)
    return obeyed


NOTABLE = 1.0
"""Seconds; a heartbeat that takes longer is recorded."""


def notable(sampled: bool, failed: bool, seconds: float) -> bool:
    """Return whether a heartbeat is recorded as a span."""
    return sampled or failed or seconds > NOTABLE


def free_slots(facts: Facts, concurrency: int, used: int) -> int:
    """Return how many slots may be filled now: none while draining or in maintenance."""
    if facts.draining or facts.maintenance:
        return 0
    return max(0, concurrency - used)


@dataclass(frozen=True)
class Departure:
    """How a drain goes: seconds from its start to SIGTERM (None waits for ever) and from there to SIGKILL."""

    started: float
    patience: float | None
    grace: float


class Push(Enum):
    """What a drain does to the jobs that still run."""

    WAIT = "wait"
    TERMINATE = "terminate"
    KILL = "kill"


def push(departure: Departure, now: float) -> tuple[Push, float | None]:
    """Return what to do at ``now`` and when to ask again (None: only when a job ends)."""
    if departure.patience is None:
        return Push.WAIT, None
    terminate_at = departure.started + departure.patience
    kill_at = terminate_at + departure.grace
    if now < terminate_at:
        return Push.WAIT, terminate_at
    if now < kill_at:
        return Push.TERMINATE, kill_at
    return Push.KILL, None


class Readopted(Enum):
    """What a restarted daemon does with a job's folder."""

    FORGET = "forget"
    """Acknowledged, and the log is complete."""
    REPORT = "report"
    """Ended and judged; the report or the log is not fully delivered."""
    WATCH = "watch"
    """Its process was started, and runs or has ended meanwhile."""
    ACCEPT = "accept"
    """It was offered and never started here."""


def readopt(started: bool, judged: bool, delivered: bool) -> Readopted:
    """Return what to do with a folder in which a process was started, an end was judged, all was delivered."""
    if judged:
        return Readopted.FORGET if delivered else Readopted.REPORT
    return Readopted.WATCH if started else Readopted.ACCEPT
