"""Which versions of a worker are accepted: pure."""

from __future__ import annotations

from packaging.version import InvalidVersion, Version

from edge_otel.errors import VersionRefused


def check(worker: str | None, server: str, minimum: str, what: str) -> bool:
    """Return whether the worker's version is the server's major.minor; patch versions never matter.

    Another one is accepted from ``minimum`` on, and False is returned. Without a minimum, or below it, VersionRefused
    is raised with both versions in the text.
    """
    if worker is None:
        raise VersionRefused(f"The worker does not say which version of {what} it runs on.")
    try:
        theirs = Version(worker)
    except InvalidVersion:
        raise VersionRefused(f"The worker's version of {what} is not a version: {worker[:64]!r}.") from None
    if theirs.release[:2] == Version(server).release[:2]:
        return True
    if minimum and theirs >= Version(minimum):
        return False
    accepted = f"{server} or another patch version of it" + (f", or anything from {minimum} on" if minimum else "")
    raise VersionRefused(f"The worker runs on {what} {worker}; this server accepts {accepted}. Change the older one.")
