"""Has a task's supervisor stop it when its worker was cut off for longer than its policy allows, should no daemon be
there to do so; run by the task interpreter.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

ANSWER_WITHIN = 5.0
"""Seconds for the daemon: one that hangs does not stop the task, and must not keep it."""


def clock() -> float:
    """Return seconds since the machine was started, sleep included; the daemon's ``contact.clock`` is the same."""
    if sys.platform != "win32" and hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def boot() -> str:
    """Return the id of this run of the machine; a dash where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() or "-"
    except OSError:
        return "-"


def overdue(record: str, boot: str, now: float) -> float | None:
    """Return the seconds without contact where they are too many; ``record`` is what the daemon has written: the run of
    the machine, when the server last answered, and how long a task may go on."""
    try:
        run, last, limit = record.split()
        silence = now - float(last)
        return silence if run == boot and silence > float(limit) else None
    except ValueError:
        return None


def ask(contact: Path) -> str | None:
    """Return what the daemon would write down, for it may not be able to; None where none answers."""
    if sys.platform == "win32":
        return None
    with suppress(OSError, ValueError, LookupError, TypeError):
        # By way of an open folder: a socket's path has a small bound. Where there is no such way there is no answer.
        folder = os.open(contact.parent, os.O_RDONLY)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(ANSWER_WITHIN)
                connection.connect(f"/proc/self/fd/{folder}/admin.sock")
                connection.sendall(b'{"do": "contact"}\n')
                with connection.makefile("rb") as answer:
                    return str(json.loads(answer.readline())["record"])
        finally:
            os.close(folder)
    return None


def install(contact: Path) -> bool:
    """Have this process's supervisor look at ``contact``, which is there where the policy is to stop; return whether it
    is built as is known here."""
    from airflow.sdk.execution_time.supervisor import ActivitySubprocess as Supervisor

    beat, run = getattr(Supervisor, "_send_heartbeat_if_needed", None), boot()
    if beat is None or not hasattr(Supervisor, "kill"):
        return False
    record = ""

    def _send_heartbeat_if_needed(self: Any) -> None:
        nonlocal record
        try:
            record = contact.read_text()
        except FileNotFoundError:
            # The policy is to keep, unless all of the folder has gone.
            record = record if not contact.parent.exists() else ""
        except OSError:
            pass
        silence = overdue(record, run, clock())
        if silence is not None and (fresh := ask(contact)) is not None:
            silence = overdue(fresh, run, clock())
        if silence is None:
            beat(self)
            return
        text = f"The worker has not reached its server for {silence:.0f} s: the task is stopped, as its policy says."
        self.process_log.error(text, logger="edge.worker")
        self.kill(signal.SIGTERM, force=True)

    Supervisor._send_heartbeat_if_needed = _send_heartbeat_if_needed
    return True
