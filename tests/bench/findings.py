"""What a measuring process found, part by part: a part that fails takes no other down."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass
class Findings:
    """Filled by the parts of one side."""

    side: str
    figures: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    """By part, why."""

    def attempt(self, part: str, measure: Callable[[Self], None]) -> None:
        """Measure a part, and say so."""
        progress(f"{self.side}: {part} …")
        began = time.monotonic()
        try:
            measure(self)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the other parts go on
            traceback.print_exc(file=sys.stderr)
            self.failed[part] = f"{type(failure).__name__}: {failure}"
            progress(f"{self.side}: {part} failed: {failure}")
        else:
            progress(f"{self.side}: {part} took {time.monotonic() - began:.0f} s")

    def as_json(self) -> str:
        """Return one line."""
        return json.dumps(vars(self))


def progress(text: str) -> None:
    """Say how far the benchmark is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
