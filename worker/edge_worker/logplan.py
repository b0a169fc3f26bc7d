"""Decisions on a growing log: what has become of its file, and when its next bytes are sent."""

from __future__ import annotations

MOST_REQUESTS = 25.0
"""Requests with less than a whole chunk that one worker makes a second, at most; its jobs share them evenly."""

FIRST, SMALLEST = 256 * 1024, 16 * 1024
"""Bytes of a log in the first request, and in those on the slowest of networks."""
QUICK, SLOW = 1.0, 4.0
"""Seconds: a request that is answered within the first may be larger, after the second it must be smaller."""


def fitting(size: int, sent: int, took: float | None) -> int:
    """Return how many bytes the next request may have, after one of ``sent`` bytes that might have had ``size``.

    It was answered after ``took`` seconds, None: not at all. A request that is too long for the network is lost as
    often as it is made.
    """
    if took is None or took > SLOW:
        return max(SMALLEST, min(size, sent // 2))
    return 2 * size if took < QUICK and sent >= size else size


def kept(known: int, size: int, begins_as_before: bool) -> int | None:
    """Return how many bytes of a file, of which ``known`` were seen, are still those: None for all of them.

    A file that is shorter has lost its end, unless its first bytes are others: then it was written anew.
    """
    if not begins_as_before:
        return 0
    return size if size < known else None


def begins_as_before(known: bytes, head: bytes) -> bool:
    """Return whether the first bytes of a file are those that were known, or more, or fewer of them."""
    return head.startswith(known) or (bool(head) and known.startswith(head))


def due_in(pending: int, chunk: int, since: float, interval: float, waiting: int) -> float | None:
    """Return in how many seconds a job's log is sent, None when there is nothing to send.

    At once if ``pending`` bytes make a whole ``chunk``, or nothing was sent for ``interval`` seconds; ``since`` is the
    time since something was. The interval grows with the number of logs ``waiting``.
    """
    if pending <= 0:
        return None
    if pending >= chunk:
        return 0.0
    return max(0.0, max(interval, waiting / MOST_REQUESTS) - since)
