"""What a loop says of itself, for those who ask whether it still turns."""

from __future__ import annotations

import time

from edge_worker.liveness import Doing


class Turn:
    """One loop's word; it may be said in any thread."""

    def __init__(self, what: str = "waiting to be started") -> None:
        self.doing = Doing(what, time.monotonic())

    def __call__(self, what: str, within: float | None = None) -> None:
        """Say what is done from now on; ``within`` is in seconds, for what must not take longer."""
        self.doing = Doing(what, time.monotonic(), within)
