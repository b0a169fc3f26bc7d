"""What a call to the central site can end in, besides an answer."""

from __future__ import annotations

import re

from edge_worker.plan import Answer

_BETWEEN_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Fault(Exception):
    """A call did not bring what it was made for."""

    @property
    def kind(self) -> str:
        """What it is, for ``error.type``: few different values."""
        return _BETWEEN_WORDS.sub("_", type(self).__name__).lower()


class Unreachable(Fault):
    """No usable answer: the network, a proxy or the server failed. The same call may work later.

    ``retry_after`` is what the server asked for, in seconds; ``status`` that of an answer which was none.
    """

    def __init__(self, detail: str, retry_after: float | None = None, status: int | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        self.status = status


class Disconnected(Unreachable):
    """The channel is closed: register again, after ``retry_after``. ``orderly``: the server said that it would."""

    def __init__(self, detail: str, retry_after: float | None = None, orderly: bool = False) -> None:
        super().__init__(detail, retry_after)
        self.orderly = orderly


class NoChannel(Unreachable):
    """There can be no WebSocket on this way to the server; plain HTTP may work."""


class Refused(Fault):
    """The server understood the call and said no; saying it again as it is will not help."""

    def __init__(self, status: int, error: str, detail: str, error_id: str = "") -> None:
        super().__init__(f"{detail} ({status} {error}{f', error id {error_id}' if error_id else ''})")
        self.status = status
        self.error = error
        self.detail = detail


class NotAllowed(Refused):
    """The token does not allow this: it heals when the token file or the server's rules change."""


class Stale(Refused):
    """The job is not this worker's any more: stop its process and forget it."""


class Forgotten(Refused):
    """The server does not know this worker: it must register again."""


class Replaced(Refused):
    """Another daemon has registered under this worker's name."""


REFUSALS = {
    Answer.NOT_ALLOWED: NotAllowed,
    Answer.STALE: Stale,
    Answer.FORGOTTEN: Forgotten,
    Answer.REPLACED: Replaced,
    Answer.REFUSED: Refused,
}
"""The fault for each answer that is a refusal."""


class Rewind(Fault):
    """The server knows fewer bytes of a log than were presumed: go on from ``cursor``."""

    status = 416

    def __init__(self, cursor: int) -> None:
        super().__init__(f"the server has {cursor} bytes")
        self.cursor = cursor


class BadSetting(Exception):
    """A setting is wrong, or the machine does not offer what it asks for; the text says what to do."""


class LaunchFailed(Exception):
    """A job's process could not be started."""
