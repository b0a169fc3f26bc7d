"""The unit file: what systemd says of it, and that it means what the daemon does."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from edge_worker import loop
from edge_worker.commandline import parser
from edge_worker.settings import Settings
from tools import missing

FOLDER = Path(__file__).parents[2] / "worker" / "systemd"
UNIT = (FOLDER / "edge-worker.service").read_text()
PROGRAM = "/opt/edge-worker/bin/edge-worker"


def value(name: str) -> str:
    """Return the one value of a setting."""
    (found,) = re.findall(rf"^{name}=(.*)$", UNIT.replace("\\\n", " "), re.MULTILINE)
    return str(found)


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze") or missing("systemd-analyze is not installed")
    (tmp_path / "edge-worker.service").write_text(UNIT.replace(PROGRAM, sys.executable))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / "edge-worker.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_exit_codes_are_those_of_the_daemon() -> None:
    assert value("RestartForceExitStatus") == value("SuccessExitStatus") == str(loop.HANDED_OVER)
    assert value("RestartPreventExitStatus") == str(loop.REPLACED)
    assert (value("KillSignal"), value("KillMode")) == ("SIGUSR1", "process")


@pytest.mark.parametrize("name", ["ExecStart", "ExecReload"])
def test_commands_are_ones_that_the_program_has(name: str) -> None:
    program, *arguments = shlex.split(value(name))
    assert program == PROGRAM
    assert parser().parse_args(arguments).command == {"ExecStart": "start", "ExecReload": "reload"}[name]


def test_every_setting_of_the_example_exists_also_those_that_are_commented_out() -> None:
    text = re.sub(r"^# (\w+ = )", r"\1", (FOLDER / "worker.toml").read_text(), flags=re.MULTILINE)
    found = tomllib.loads(text)
    assert len(found) > 5
    assert found.keys() <= Settings.model_fields.keys()
