"""The commands for a daemon that runs on this machine. Exit codes: 0 done, 1 not as ``--check`` wants it."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

from edge_otel.state import WorkerState
from edge_worker.admin import ask
from edge_worker.faults import BadSetting
from edge_worker.settings import state_dir

DONE, NOT_SO = 0, 1
LOOK = 0.5
"""Seconds between looks at what is waited for."""


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
    folder = state_dir(given["state_dir"], given["config"])
    answer = ask(folder, request)
    if command == "status":
        try:
            return _show(answer, given)
        except KeyError as missing:
            raise BadSetting(
                f"the daemon is of another version: it does not tell {missing}; use --output json"
            ) from None
    if command == "reload":
        say(f"changed: {', '.join(answer['changed']) or 'nothing'}")
        if answer["waiting"]:
            say(f"these need a restart, and are as before: {', '.join(answer['waiting'])}")
        return DONE
    say(f"{answer['name']}: {answer['state']}, {len(answer['jobs'])} jobs")
    if given.get("wait") and command == "maintenance":
        while answer["state"] == WorkerState.MAINTENANCE_PENDING:
            time.sleep(LOOK)
            answer = ask(folder, {"do": "status"})
        say(f"{answer['name']}: {answer['state']}")
    elif given.get("wait"):
        _await_end(answer["pid"])
        say(f"{answer['name']}: the daemon has left")
    return DONE


def say(text: str) -> None:
    """Print, unless whoever reads it has gone. Raises OSError."""
    with suppress(BrokenPipeError):
        print(text, flush=True)  # noqa: T201


def _show(answer: dict[str, Any], given: dict[str, Any]) -> int:
    if given["check"] is not None:
        judged = answer[given["check"]]
        say("; ".join(judged["reasons"]) or "ok")
        return DONE if judged["ok"] else NOT_SO
    if given["output"] == "json":
        say(json.dumps(answer, indent=2))
        return DONE
    from edge_worker.report import lines

    say("\n".join(lines(answer, time.time())))
    return DONE


def _await_end(pid: int) -> None:
    import asyncio

    from edge_worker.journal import Started
    from edge_worker.processes import ended, identity

    asyncio.run(ended(Started(pid, identity(pid), time.time())))
