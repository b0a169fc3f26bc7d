"""Stands in for a task interpreter where a test is about the daemon: the launch modules are real, Airflow is not.

A workload's ``do`` is Python code, run where Airflow's supervisor would be. ``log`` appends to the task's log.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("stubbed_" + Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wait_for_file(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.02)


def execute(workload: str, server: str | None, end_leftovers: Callable[[], None]) -> tuple[int, str | None]:
    parsed = json.loads(workload)
    folder = Path(os.environ["AIRFLOW__LOGGING__BASE_LOG_FOLDER"])
    found: dict[str, Any] = {
        "workload": parsed,
        "server": server,
        "code": 0,
        "state": None,
        "wait_for_file": wait_for_file,
        "folder": folder,
        "os": os,
        "sys": sys,
        "time": time,
        "signal": signal,
        "json": json,
        "Path": Path,
    }

    def log(data: bytes) -> None:
        path = folder / parsed["log_path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as handle:
            handle.write(data)

    found["log"] = log
    exec(parsed["do"], found)
    return found["code"], found["state"]


def spoil(zygote: ModuleType) -> None:
    """Do to the first zygote what machines and libraries do."""
    mark = Path(os.environ.get("STUB_ZYGOTE_SPOILT", ""))
    if mark.name and not mark.exists():
        mark.touch()
        if mark.name == "cannot-fork":
            zygote.os.fork = lambda: os.execv("/nonexistent", ["no such program"])
        elif mark.name == "grows":
            tell, held = zygote.Zygote.tell, []

            def hoard(self: Any, **what: Any) -> None:
                if "ended" in what:
                    held.append(bytearray(os.urandom(1024) * 1024 * 50))
                tell(self, **what)

            zygote.Zygote.tell = hoard
        elif mark.name == "loads-until-told":
            wait_for_file(str(mark.with_name("loaded")))
        elif mark.name == "has-a-helper":
            mark.write_text(str(subprocess.Popen(["sleep", "600"]).pid))


def main() -> None:
    arguments = sys.argv[1:]
    assert arguments.pop(0) == "-P"
    if arguments[0] == "-c":
        told = os.environ.get("STUB_FACTS")
        print(Path(told).read_text() if told else json.dumps({"airflow_version": "3.3.2", "python_version": "3.11.7"}))
        return
    sys.argv = arguments
    module = load(arguments[0])
    task_run = module if Path(arguments[0]).name == "task_run.py" else module.load_task_run()
    task_run.execute = execute
    task_run.name_host = lambda name: None
    if module is not task_run:
        if os.environ.get("STUB_ZYGOTE_FAILS"):
            sys.exit("this zygote cannot start")
        spoil(module)
        module.preload = lambda: None
        module.start_tracing = lambda: None
        module.load_task_run = lambda: task_run
    module.main()


if __name__ == "__main__":
    main()
