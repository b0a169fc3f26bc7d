"""What the stack in containers is given: read by the programs themselves, and its scripts run by a shell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from cryptography.fernet import Fernet
from tools import missing

from dashboards import prometheus

ROOT = Path(prometheus.__file__).parents[1]
PROVISIONING = ROOT / "dashboards" / "provisioning"


def test_prometheus_takes_its_configuration_with_the_rules(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        missing("promtool is not installed")
    token = tmp_path / "token"
    token.write_text("of the test")
    given = (PROVISIONING / "prometheus.yml").read_text()
    here = given.replace("/etc/prometheus/rules", str(ROOT / "dashboards/out")).replace(
        "/run/metrics/token", str(token)
    )
    config = tmp_path / "prometheus.yml"
    config.write_text(here)
    checked = subprocess.run(
        ["promtool", "check", "config", config], capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "edge-otel.rules.yaml" in checked.stdout, "the rules are found where they are mounted"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The folder in which the service ``secrets`` has worked, with its volumes as folders; not as root, no busybox."""
    service = yaml.safe_load((ROOT / "compose.observability.yaml").read_text())["services"]["secrets"]
    folder = tmp_path / "made"
    for volume in service["volumes"]:
        (folder / Path(volume.partition(":")[2]).name).mkdir(parents=True)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, does in (("chown", ""), ("cp", 'touch "$2"\n')):
        (programs / name).write_text(f"#!/bin/sh\n{does}")
        (programs / name).chmod(0o755)
    *shell, script = service["command"]
    env = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    for _ in range(2):
        before = {path: path.read_text() for path in folder.rglob("*") if path.is_file()}
        text = script.replace("$$", "$").replace("/made", str(folder))
        subprocess.run([*shell, text], env=env, check=True, timeout=30)
        assert {path: path.read_text() for path in before} == before, "what is there is kept"
    return folder


def test_the_secrets_of_the_stack_are_what_each_program_wants(made: Path) -> None:
    files = [path for path in made.rglob("*") if path.is_file() and path.parent.name != "probe"]
    said = {str(path.relative_to(made)): path.read_text() for path in files}
    assert len(set(said.values())) == len(said) == 8
    assert not [name for name, text in said.items() if text != text.strip()], "Airflow takes a last newline for a part"
    Fernet(said["airflow/fernet-key"])
    assert len(said["airflow/jwt-secret"]) >= 64
    assert len(json.loads(said["login/airflow.json"])["admin"]) >= 43
    assert f":{said['postgres/password']}@postgres:5432/" in said["airflow/database-url"]
