"""The command ``make demo`` itself."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import psutil

from demo.environment import bare
from demo.process import Process, free_port
from demo.wait import wait_for


def start(folder: Path, *arguments: str) -> Process:
    """Start the demo in a folder of its own; its output is in ``folder / "output"``."""
    env = {**bare("none"), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "demo", *arguments]
    return Process("demo", command, log=folder / "output", env=env, cwd=folder, stop_signal=signal.SIGINT)


def test_once_ends_by_itself_and_leaves_nothing(tmp_path: Path) -> None:
    demo = start(tmp_path, "--once", "--sqlite", "--port", str(free_port()))
    code = demo.wait(240)
    output = (tmp_path / "output").read_text()
    assert code == 0, output
    assert "All of it was right" in output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output"]


def test_an_interrupted_demo_leaves_no_process(tmp_path: Path) -> None:
    demo = start(tmp_path, "--port", str(free_port()))
    wait_for(lambda: "Starting the API server" in (tmp_path / "output").read_text(), "the first steps", timeout=120)
    started = psutil.Process(demo.pid).children(recursive=True)
    assert started, "the demo had started processes"
    demo.terminate()
    assert demo.wait(90) == 130, (tmp_path / "output").read_text()
    assert [process for process in started if process.is_running()] == []


def test_a_port_in_use_is_a_clear_message(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        demo = start(tmp_path, "--once", "--port", str(port))
        assert demo.wait(60) == 2
    output = (tmp_path / "output").read_text()
    assert f"Port {port} cannot be used" in output
    assert "--port" in output
    assert "Traceback" not in output
