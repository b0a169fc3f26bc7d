"""The commands for a daemon that runs on this machine. Exit codes: 0 done, 1 not as ``--check`` wants it."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from edge_worker.admin import ask
from edge_worker.faults import BadSetting
from edge_worker.settings import state_dir

DONE, NOT_SO = 0, 1


def perform(command: str, given: dict[str, Any]) -> int:
    """Ask the daemon, print its answer and return the exit code. Raises BadSetting."""
    request = {"do": command}
    if command == "maintenance":
        wishes: dict[str, dict[str, Any]] = {
            "on": {"on": True, "comment": given.get("text", "")},
            "off": {"on": False},
            "comment": {"comment": given.get("text", "")},
        }
        request |= wishes[given["switch"]]
    answer = ask(state_dir(given["state_dir"], given["config"]), request)
    if command == "status":
        try:
            return _show(answer, given)
        except KeyError as missing:
            raise BadSetting(
                f"the daemon is of another version: it does not tell {missing}; use --output json"
            ) from None
    if command == "reload":
        print("changed:", ", ".join(answer["changed"]) or "nothing")  # noqa: T201
        if answer["waiting"]:
            print("these need a restart, and are as before:", ", ".join(answer["waiting"]))  # noqa: T201
        return DONE
    print(f"{answer['name']}: {answer['state']}, {len(answer['jobs'])} jobs")  # noqa: T201
    if given.get("wait"):
        sys.stdout.flush()
        _await_end(answer["pid"])
        print(f"{answer['name']}: the daemon has left")  # noqa: T201
    return DONE


def _show(answer: dict[str, Any], given: dict[str, Any]) -> int:
    if given["check"] is not None:
        judged = answer[given["check"]]
        print("; ".join(judged["reasons"]) or "ok")  # noqa: T201
        return DONE if judged["ok"] else NOT_SO
    if given["output"] == "json":
        print(json.dumps(answer, indent=2))  # noqa: T201
        return DONE
    from edge_worker.report import lines

    print("\n".join(lines(answer, time.time())))  # noqa: T201
    return DONE


def _await_end(pid: int) -> None:
    import asyncio

    from edge_worker.journal import Started
    from edge_worker.processes import ended, identity

    asyncio.run(ended(Started(pid, identity(pid), time.time())))
