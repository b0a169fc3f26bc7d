"""A limit on a rate, as a token bucket."""

from __future__ import annotations


class Allowance:
    """``rate`` bytes a second over time, and ``burst`` bytes at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._left = burst
        self._at = 0.0

    def take(self, size: int, now: float) -> bool:
        """Return whether ``size`` bytes are within the limit at ``now``, in seconds; if so they count."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if size > self._left:
            return False
        self._left -= size
        return True
