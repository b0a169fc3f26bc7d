"""Decisions on a growing log: what has become of its file, and when its next bytes are sent."""

from __future__ import annotations

MOST_REQUESTS = 25.0
"""Requests with less than a whole chunk that one worker makes a second, at most; its jobs share them evenly."""


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
