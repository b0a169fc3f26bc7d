"""Times ``EdgeExecutor.sync()`` in this environment, and prints the milliseconds of each call as JSON."""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module

CALLS = 15


def main(path: str) -> None:
    """``path`` is the executor's import path; the database is that of Airflow's configuration."""
    module, _, name = path.rpartition(".")
    executor = getattr(import_module(module), name)()
    executor.start()
    # A job of this executor that never ends, so that it has something to look for.
    if hasattr(executor, "_track"):
        from datetime import UTC, datetime

        from airflow.models.taskinstancekey import TaskInstanceKey

        executor._track("none", TaskInstanceKey("d", "t", "r", 1, -1), datetime.now(UTC))
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        executor.sync()
        times.append((time.perf_counter() - began) * 1000)
    print("\n" + json.dumps(times))


if __name__ == "__main__":
    main(sys.argv[1])
