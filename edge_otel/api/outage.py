"""Whether a collector is known not to take telemetry, and when to try again. Pure: times are of any one clock."""

from __future__ import annotations

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds between tries: doubled with each failure, unless the collector says itself how long to wait."""
LONGEST_ASKED = 60.0
"""Seconds that a collector may ask for."""


class Outage:
    """One signal's way to the collector: open, or closed until a time; then one try decides for all."""

    def __init__(self) -> None:
        self._wait = 0.0
        self._until = 0.0
        self._trying = False

    @property
    def on(self) -> bool:
        """Whether the last try failed."""
        return self._wait > 0

    def left(self, now: float) -> float | None:
        """Return the seconds to wait; None when a try may be made."""
        if self.on and (self._trying or now < self._until):
            return max(FIRST_WAIT, self._until - now)
        return None

    def begin(self) -> bool:
        """A try is made; return whether it is the one that decides."""
        decides = self.on
        self._trying = self._trying or decides
        return decides

    def end(self, decides: bool) -> None:
        """A try is over, whatever came of it."""
        self._trying = self._trying and not decides

    def failed(self, now: float, asked: float | None) -> bool:
        """Note that a try failed; return whether it is news. ``asked``: seconds that the collector wants to wait."""
        if self.on and now < self._until:
            # Begun before the failure that is known.
            return False
        news = not self.on
        self._wait = min(LONGEST_WAIT, 2 * self._wait) if self.on else FIRST_WAIT
        self._until = now + (self._wait if asked is None else min(LONGEST_ASKED, max(FIRST_WAIT, asked)))
        return news

    def ended(self) -> bool:
        """Note that the collector has answered; return whether that is news."""
        news = self.on
        self._wait = self._until = 0.0
        return news
