"""Runs one job in the task interpreter: ``python -P task_run.py JOBFOLDER``, or in a fork of the zygote.

This file is run by an interpreter in which edge_worker need not be installed: standard library and Airflow only.
It exits with the code of Airflow's supervisor and leaves ``result.json`` in the folder.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import selectors
import sys
import time
import traceback
import types
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any


def load_beside(name: str) -> ModuleType:
    """Return a module of this folder, which is not on the path."""
    spec = importlib.util.spec_from_file_location(f"edge_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


leftovers, endurance = load_beside("leftovers"), load_beside("endurance")
lifeline, lenient, selecting = load_beside("lifeline"), load_beside("lenient"), load_beside("selecting")

TAIL_BYTES, TAIL_LINES = 16 * 1024, 100
"""How much of the captured output goes to the end of a log in which Airflow wrote nothing."""

OOM_SCORE = 300
"""Of 1000: whom the kernel kills first when memory runs out. A job, neither the daemon nor what else is running."""


class Claimed(Exception):
    """A process runs, or ran, in this folder already."""


def write(path: Path, record: dict[str, Any]) -> None:
    """Write a JSON file in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(record))
    temporary.replace(path)


def identity() -> str:
    """Return this process's identity; the daemon's ``processes.identity`` computes the same. Empty without /proc."""
    try:
        ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
    boot = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{ticks}"


def claim(folder: Path) -> None:
    """Make this process the only one that ever runs the job of ``folder``; raises Claimed."""
    temporary = folder / f".process.{os.getpid()}"
    temporary.write_text(json.dumps({"pid": os.getpid(), "identity": identity(), "time": time.time()}))
    try:
        # A link is created or refused in one step and, unlike an exclusive open, appears with its content.
        os.link(temporary, folder / "process.json")
    except FileExistsError:
        raise Claimed(folder.name) from None
    finally:
        temporary.unlink()


def claimed_by(folder: Path) -> int | None:
    """Return the pid of the process that runs, or ran, the job of ``folder``."""
    try:
        return int(json.loads((folder / "process.json").read_bytes())["pid"])
    except (OSError, ValueError, KeyError):
        return None


def used(*usages: Any) -> dict[str, Any]:
    """Return CPU time (seconds, of all) and peak memory (bytes, of the largest process) of getrusage(2)'s answers."""
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "cpu_time": round(sum(usage.ru_utime + usage.ru_stime for usage in usages), 3),
        "memory_peak": max(usage.ru_maxrss for usage in usages) * unit,
    }


def usage() -> dict[str, Any]:
    """Return what this process and its children have used; empty where the system does not tell."""
    if sys.platform == "win32":
        return {}
    import resource

    return used(resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))


def append_log(path: Path, lines: list[str], level: str = "error") -> None:
    """Append events to a task's log in Airflow's format, one JSON object a line."""
    # Also the job's own folder, and those above it, where they were removed.
    for folder in [folder for folder in reversed(path.parents) if not folder.exists()]:
        folder.mkdir(mode=0o700, exist_ok=True)
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    records = ({"timestamp": now, "level": level, "event": line, "logger": "edge.worker"} for line in lines)
    text = "".join(json.dumps(record) + "\n" for record in records)
    with path.open("ab") as handle:
        if handle.tell():
            with path.open("rb") as written:
                written.seek(-1, os.SEEK_END)
                if written.read(1) != b"\n":
                    text = "\n" + text
        handle.write(text.encode())


def tail(path: Path) -> list[str]:
    """Return the last lines of captured output; none where there is none."""
    try:
        with path.open("rb") as handle:
            handle.seek(max(0, path.stat().st_size - TAIL_BYTES))
            text = handle.read().decode(errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-TAIL_LINES:]


def name_host(name: str) -> None:
    """Make the worker's name this process's host name in Airflow, unless the user has named a callable.

    By the in-memory configuration and a module made here: nothing that a task's own subprocesses could trip over.
    """
    if os.environ.get("AIRFLOW__CORE__HOSTNAME_CALLABLE"):
        return
    module = types.ModuleType("edge_task_host")
    module.worker_name = lambda: name  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    from airflow.configuration import conf as core
    from airflow.sdk.configuration import conf as sdk

    for conf in (core, sdk):
        if not conf.has_section("core"):
            conf.add_section("core")
        conf.set("core", "hostname_callable", f"{module.__name__}.worker_name")


def wake_on_exit(process: Any) -> None:
    """Have a supervisor's select return at once when its child has ended.

    A child whose pipes are closed a moment before it is gone would else be noticed at the next heartbeat, 5 s later.
    """
    if sys.platform != "linux":
        return
    child = os.fdopen(os.pidfd_open(process.pid), "rb", buffering=0)

    def forget(_: Any) -> None:
        with contextlib.suppress(KeyError, ValueError):
            process.selector.unregister(child)

    process.selector.register(child, selectors.EVENT_READ, (lambda _: False, forget))


def attend(seen: dict[str, str], end_leftovers: Callable[[], None]) -> None:
    """Have Airflow's supervisors end promptly, clear up behind their task, and leave its state in ``seen``.

    The state, because the exit code is 0 also for a task that has failed.
    """
    from airflow.sdk.execution_time.callback_supervisor import CallbackSubprocess
    from airflow.sdk.execution_time.supervisor import ActivitySubprocess

    for kind in (ActivitySubprocess, CallbackSubprocess):

        def attended(process: Any, wait: Any = kind.wait) -> Any:
            with contextlib.suppress(AttributeError, OSError, ValueError):
                # What is repeated while the Execution API is away asks the selector below its own loop.
                selecting.keep_fresh(process.selector)
                wake_on_exit(process)
            try:
                return wait(process)
            finally:
                state = getattr(process, "final_state", None)
                if state is not None:
                    seen["task_state"] = str(getattr(state, "value", state))

        def serviced(process: Any, *args: Any, service: Any = kind._service_subprocess, **more: Any) -> Any:
            leftovers.reap(but=process.pid)
            code = service(process, *args, **more)
            if code is not None:
                # What holds the task's pipes would hold the supervisor for a minute.
                end_leftovers()
            return code

        kind.wait = attended
        kind._service_subprocess = serviced


def execute(workload: str, server: str | None, end_leftovers: Callable[[], None]) -> tuple[int, str | None]:
    """Run a workload (JSON) of any kind by Airflow's own supervisors; return the exit code and the task's state.

    ``end_leftovers`` is called when the task's process has ended.
    """
    from airflow.executors.base_executor import BaseExecutor
    from airflow.executors.workloads import ExecutorWorkload
    from pydantic import TypeAdapter

    decoded = TypeAdapter(ExecutorWorkload).validate_json(workload)
    seen: dict[str, str] = {}
    with contextlib.suppress(Exception):
        attend(seen, end_leftovers)
    code = int(BaseExecutor.run_workload(decoded, server=server))
    return code, seen.get("task_state")


def become_job(nice: int) -> None:
    """Adopt what the task's processes leave behind, and offer them to the kernel when memory runs out.

    ``nice`` is added to the process's nice value.
    """
    leftovers.adopt_orphans()
    if nice and hasattr(os, "nice"):
        os.nice(nice)
    with contextlib.suppress(OSError, ValueError):
        score = Path("/proc/self/oom_score_adj")
        if int(score.read_text()) < OOM_SCORE:
            score.write_text(str(OOM_SCORE))


def run(folder: Path) -> int:
    """Run the job of ``folder``, which this process has claimed; return the exit code, written to the folder too."""
    order = json.loads((folder / "launch.json").read_bytes())
    os.environ.update(order["env"])
    secret = folder / "workload.json"
    workload = secret.read_text()
    # It holds the workload's token; nobody needs it again.
    secret.unlink()
    log_file = Path(order["log_file"]) if order["log_file"] else None
    left: list[str] = []

    def end_leftovers(others: bool = True) -> None:
        left.extend(leftovers.end(order.get("grace", 10.0), others))

    code, state, error, lines = 1, None, None, []
    try:
        become_job(order.get("nice", 0))
        name_host(order["worker"])
        # Whatever it meets in a version of Airflow that it does not know, the task runs.
        with contextlib.suppress(Exception):
            endurance.install(folder, order["renews"])
            lifeline.install(Path(order["contact"]))
            lenient.install()
        code, state = execute(workload, order["server"], end_leftovers)
    except BaseException as failure:  # noqa: BLE001 - whatever it was, the log must tell
        if isinstance(failure, SystemExit) and failure.code in (None, 0):
            code = 0
        else:
            error = f"The task's supervisor failed: {type(failure).__name__}: {failure}"[:2000]
            lines = [error, *"".join(traceback.format_exception(failure)).splitlines()]
    lenient.flush()
    if log_file is not None and code != 0:
        empty = not log_file.exists() or log_file.stat().st_size == 0
        if empty and not lines:
            lines = [f"The task's process ended with code {code}. Its output:", *tail(folder / "output")]
        if lines:
            with contextlib.suppress(OSError):
                append_log(log_file, lines)
    result = {"exit_code": code, "error": error, "time": time.time(), "task_state": state}
    # Where there is no room for it, the exit code alone tells.
    with contextlib.suppress(OSError):
        write(folder / "result.json", {**result, **usage()})
    # After the result: whoever loses patience with what is left does not change how the job ended.
    end_leftovers(others=False)
    if log_file is not None and left:
        text = f"The task left processes behind, which were ended: {', '.join(left[:20])}."
        with contextlib.suppress(OSError):
            append_log(log_file, [text], "warning")
    return code


def main() -> None:
    """Run the job whose folder is the first argument, in this interpreter."""
    folder = Path(sys.argv[1])
    claim(folder)
    code = run(folder)
    lenient.flush()
    # As after a fork: threads that a task's libraries left behind must not hold the process.
    os._exit(code & 0xFF)


if __name__ == "__main__":
    main()
