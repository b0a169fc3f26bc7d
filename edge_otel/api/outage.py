"""Whether a collector is known not to take telemetry, and when to try again. Pure: times are of any one clock."""

from __future__ import annotations

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds between tries: doubled with each failure, unless the collector says itself how long to wait."""
LONGEST_ASKED = 60.0
"""Seconds that a collector may ask for."""
TELL_INTERVAL = 60.0
"""Seconds between two lines in the log on single requests that were not taken."""


def limited(asked: float | None, otherwise: float) -> float:
    """Return the seconds to wait where the collector has asked for so many, or for none."""
    return otherwise if asked is None else min(LONGEST_ASKED, max(FIRST_WAIT, asked))


class Outage:
    """One signal's way to the collector: open, or closed until a time; then one probe decides for all."""

    def __init__(self) -> None:
        self._wait = 0.0
        self._until = 0.0
        self._probing = False
        self._quiet_until = 0.0

    @property
    def on(self) -> bool:
        """Whether the last probe failed."""
        return self._wait > 0

    def left(self, now: float) -> float | None:
        """Return the seconds to wait; None when there is no outage, or it is time to probe."""
        if self.on and (self._probing or now < self._until):
            return max(FIRST_WAIT, self._until - now)
        return None

    def begin(self) -> bool:
        """Return whether to probe: not while another one does."""
        probes = not self._probing
        self._probing = True
        return probes

    def end(self) -> None:
        """The probe is over, whatever came of it."""
        self._probing = False

    def failed(self, now: float, asked: float | None) -> bool:
        """Note that a probe failed; return whether it is news. ``asked``: seconds that the collector wants to wait."""
        news = not self.on
        self._wait = min(LONGEST_WAIT, 2 * self._wait) if self.on else FIRST_WAIT
        self._until = now + limited(asked, self._wait)
        return news

    def ended(self) -> bool:
        """Note that the collector has answered; return whether that is news."""
        news = self.on
        self._wait = self._until = 0.0
        return news

    def refused(self, now: float) -> bool:
        """Note that one request was not taken, though others are; return whether to tell of it."""
        tells = now >= self._quiet_until
        if tells:
            self._quiet_until = now + TELL_INTERVAL
        return tells
