"""The command ``make demo`` itself."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from demo.environment import bare
from demo.process import Process, free_port
from demo.prometheus import why_prometheus_cannot_run
from demo.wait import wait_for


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[Process]:
    """Run the demo in a folder of its own; its output is in ``folder / "output"``."""
    env = {**bare("none"), "PYTHONPATH": str(Path(__file__).parents[2])}
    # A shell's background job begins with SIGINT ignored: the demo must hear it all the same.
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-m", "demo", *arguments]
    demo = Process("demo", command, log=folder / "output", env=env, cwd=folder, stop_signal=signal.SIGINT)
    try:
        yield demo
    finally:
        demo.stop(90)


def lives(process: psutil.Process) -> bool:
    """Return whether it runs; one that has ended is a zombie until the system's first process asks for it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_once_ends_by_itself_and_leaves_nothing(tmp_path: Path) -> None:
    with started(tmp_path, "--once", "--sqlite", "--port", str(free_port())) as demo:
        code = demo.wait(240)
    output = (tmp_path / "output").read_text()
    assert code == 0, output
    assert "All of it was right" in output
    if why_prometheus_cannot_run() is None:
        assert "Prometheus with the rules is on http://127.0.0.1:" in output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output"]


def test_an_interrupted_demo_leaves_no_process(tmp_path: Path) -> None:
    def said() -> str:
        return (tmp_path / "output").read_text()

    with started(tmp_path, "--port", str(free_port())) as demo:
        wait_for(lambda: "Starting the API server" in said(), "the first steps", timeout=120)
        children = psutil.Process(demo.pid).children(recursive=True)
        assert children, "the demo had started processes"
        demo.terminate()
        assert demo.wait(90) == 130, said()
    wait_for(lambda: not any(lives(child) for child in children), "their end", timeout=60)


def test_a_port_in_use_is_a_clear_message(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with started(tmp_path, "--once", "--port", str(port)) as demo:
            assert demo.wait(60) == 2
    output = (tmp_path / "output").read_text()
    assert f"Port {port} cannot be used" in output
    assert "--port" in output
    assert "Traceback" not in output
