"""What the daemon knows of the Python that runs tasks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import airflow
import pytest
from conftest import stub_interpreter
from edge_worker.host import TaskInterpreter


def test_environment_that_is_swapped_by_its_link_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, facts = tmp_path / "current", tmp_path / "facts.json"
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    link.symlink_to("old")
    facts.write_text(json.dumps({"airflow_version": "3.3.2", "python_version": "3.11.7", "packages": str(link)}))
    monkeypatch.setenv("STUB_FACTS", str(facts))
    interpreter = TaskInterpreter(str(stub_interpreter(tmp_path)))
    interpreter.versions()
    before = interpreter.mark()
    assert interpreter.mark() == before
    link.unlink()
    link.symlink_to("new")
    assert interpreter.mark() != before


def test_folder_of_packages_is_that_of_the_real_airflow() -> None:
    interpreter = TaskInterpreter(sys.executable)
    assert interpreter.versions()["airflow_version"] == airflow.__version__
    of_python, packages = interpreter.mark()[:2], interpreter.mark()[2:]
    seen = Path(airflow.__file__).parents[1].stat()
    assert packages == (seen.st_ino, seen.st_mtime_ns) != of_python
