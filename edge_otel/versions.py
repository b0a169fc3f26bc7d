"""Which versions of a worker are accepted: pure."""

from __future__ import annotations

from packaging.version import InvalidVersion, Version

from edge_otel.errors import VersionRefused

_LONGEST = 64


def parsed(text: str) -> Version | None:
    """Return the text as a version, or None if it is none of a reasonable length."""
    try:
        return Version(text) if len(text) <= _LONGEST else None
    except InvalidVersion:
        return None


def check(worker: str | None, server: str, minimum: str, what: str) -> bool:
    """Return whether the worker's version is the server's major.minor; patch versions never matter.

    Another one is accepted from ``minimum`` on, and False is returned. Without a minimum, or below it, VersionRefused
    is raised with both versions in the text.
    """
    if worker is None:
        raise VersionRefused(f"The worker does not say which version of {what} it runs on.")
    theirs = parsed(worker)
    if theirs is None:
        raise VersionRefused(f"The worker's version of {what} is not a version: {worker[:_LONGEST]!r}.")
    if theirs.release[:2] == Version(server).release[:2]:
        return True
    if minimum and theirs >= Version(minimum):
        return False
    accepted = f"{server} or another patch version of it" + (f", or anything from {minimum} on" if minimum else "")
    raise VersionRefused(f"The worker runs on {what} {worker}; this server accepts {accepted}. Change the older one.")
