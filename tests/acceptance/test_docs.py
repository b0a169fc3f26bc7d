"""Each command in a block of README and docs is run, in the order of its page, on a real Airflow with real workers.

What stands for something of the reader's (URLs, paths, names) is replaced by ``Stage.places``. A command that none of
``RULES`` knows fails. What cannot be run here is under ``NOT_RUN``, with the reason and what is looked at instead.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import opentelemetry.environment_variables
import opentelemetry.sdk.environment_variables
import pytest
import yaml
from airflow_database import use
from handbook import PAGES, ROOT, blocks, commands
from pip._internal.commands import create_command

from acceptance.rig import LONG, Rig
from acceptance.stage import Stage, help_of, options_in
from demo.airflow_api import UNFINISHED
from edge_otel.settings import Settings

Run = Callable[[Stage, list[str]], None]
ONCE: set[str] = set()
"""Commands that take long, and need not be run for each page that has them."""


@pytest.fixture
def stage(rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Stage]:
    """The scene of one page, on the site of all acceptance tests."""
    before = os.environ.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN")
    use(rig.cluster.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    stage = Stage(rig, tmp_path, capsys)
    yield stage
    stage.stop(*stage.running())
    # What comes next finds neither workers nor their maintenance.
    for name in [row["name"] for row in rig.rows("SELECT name FROM edge_otel_worker WHERE name LIKE 'site-%'")]:
        stage.airflow(["airflow", "edge", "workers", "remove", name])
    if before is not None:
        use(before)


# How a command is run.


def alone(stage: Stage, words: list[str]) -> None:
    """A command that needs no worker."""
    stage.airflow(words)


def edge_connected(stage: Stage, words: list[str]) -> None:
    """A command about workers that are there: the one that it names, or those of the docs."""
    named = [word for word in words if re.fullmatch(r"site-\d", word)]
    stage.connect(*(named or stage.running() or ["site-1"]))
    stage.airflow(words)


def edge_resting(stage: Stage, words: list[str]) -> None:
    """A command about workers in maintenance."""
    stage.connect(*(stage.running() or ["site-1"]))
    name = stage.running()[0]
    if stage.rig.worker_state(name) != "maintenance mode":
        stage.airflow(["airflow", "edge", "workers", "maintenance", "on", name, "--wait"])
    stage.airflow(words)
    stage.rig.wait_worker(name, "idle")


def edge_shutdown(stage: Stage, words: list[str]) -> None:
    """A command after which a worker leaves."""
    name = words[words.index("shutdown") + 1]
    stage.connect(name)
    with stage.leaving(name):
        stage.airflow(words)


def edge_gone(stage: Stage, words: list[str]) -> None:
    """A command about workers that are gone."""
    name = words[words.index("remove") + 1]
    if name == "*":
        name = next(iter(stage.running()), "site-1")
    if stage.rig.worker_state(name) is None:
        stage.connect(name)
    stage.stop(name)
    stage.airflow(words)
    assert stage.rig.worker_state(name) is None


def create_token(stage: Stage, words: list[str]) -> None:
    """The token is carried to the site."""
    stage.new_token = stage.airflow(words).split()[-1]
    assert stage.new_token.startswith("ewt_")
    stage.token_file.write_text(stage.new_token)


def paste_token(stage: Stage, words: list[str]) -> None:
    """``(umask 077 && cat > FILE)``, with somebody who pastes the token."""
    stage.process(["bash", "-c", " ".join(words)], f"{stage.new_token}\n")
    file = Path(words[-1].rstrip(")"))
    assert (file.read_text().strip(), file.stat().st_mode & 0o777) == (stage.new_token, 0o600)


def start_worker(stage: Stage, words: list[str]) -> None:
    """The daemon, which takes jobs then."""
    stage.start(words[words.index("--name") + 1], words)


def start_by_airflow(stage: Stage, words: list[str]) -> None:
    """The daemon by Airflow's configuration, which the page has exported."""
    name = words[words.index("--edge-hostname") + 1]
    # Its folder is that of the other ways.
    options = {**stage.exports, "AIRFLOW__EDGE__STATE_DIR": str(stage.state_dir)}
    stage.start(name, [sys.executable, "-m", *words], **options)


def local(stage: Stage, words: list[str]) -> None:
    """A command beside the daemon."""
    stage.connect(*(stage.running() or ["site-1"]))
    stage.process(words)


def local_end(stage: Stage, words: list[str]) -> None:
    """A command that ends the daemon."""
    stage.connect("site-1")
    with stage.leaving("site-1"):
        stage.process(words)


def once(run: Run) -> Run:
    """Run a command the first time that a page has it."""

    def only_first(stage: Stage, words: list[str]) -> None:
        about = " ".join(words[:4])
        if about not in ONCE:
            run(stage, words)
            ONCE.add(about)

    return only_first


def migrate(stage: Stage, _: list[str]) -> None:
    """The site was made by this command."""
    assert stage.rig.rows("SELECT version_num FROM alembic_version_edge_otel")


def trigger(stage: Stage, words: list[str]) -> None:
    """A run, which is a success, on the worker of the page."""
    stage.airflow(words)
    query = "SELECT run_id, state FROM dag_run WHERE dag_id = :dag ORDER BY id DESC"

    def run() -> dict[str, str]:
        return stage.rig.rows(query, dag=words[-1])[0]

    # Not by Airflow's API: at the first task of all it is silent while it makes its Execution API.
    stage.rig.wait(lambda: run()["state"] not in UNFINISHED, "the run to end", LONG)
    assert run()["state"] == "success"
    assert {job["worker"] for job in stage.rig.jobs(run()["run_id"])} == {"site-1"}


def ready(stage: Stage, words: list[str]) -> None:
    """A question to the Edge API."""
    assert json.loads(stage.process(words)) == {"status": "ok", "detail": None}


def plain(stage: Stage, words: list[str]) -> None:
    """A program of the system, on files of the stage."""
    stage.process(words)


def serve(stage: Stage, words: list[str]) -> None:
    """A server, until it answers."""
    stage.serve(words)


# What is looked at where a command is not run.


def export(stage: Stage, words: list[str]) -> None:
    """A setting of the central site, which this one has in its own way: the option must be one that there is."""
    from airflow.configuration import conf

    for word in words[1:]:
        name, _, value = word.partition("=")
        assert value, word
        stage.exports[name] = value
        if name.startswith("OTEL_"):
            sdk, api = opentelemetry.sdk.environment_variables, opentelemetry.environment_variables
            assert hasattr(sdk, name) or hasattr(api, name), name
            continue
        _, section, option = name.lower().split("__")
        known = vars(Settings()) if section == "edge" else conf.configuration_description[section]["options"]
        assert option in known, name


def pip(_: Stage, words: list[str]) -> None:
    """It would change the environment of these tests: pip's own parser reads the line, and extras must be ours."""
    action, *rest = words[1:]
    _, what = create_command(action).parse_args(rest)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name in what:
        if name.startswith("."):
            extras = re.findall(r"\[(.+)\]", name)
            assert set(extras) <= set(project["optional-dependencies"]), name
        else:
            assert name.partition("==")[0] in (project["name"], "apache-airflow-providers-edge3"), name


def make(_: Stage, words: list[str]) -> None:
    """It takes minutes, or runs these tests themselves: the target must be there."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert words[1] in targets
    assert all(word.startswith("ARGS=") for word in words[2:])


def useradd(_: Stage, words: list[str]) -> None:
    """It would change this machine: its options must be known."""
    known = help_of("useradd")
    assert not known or [option for option in options_in(words) if option not in known] == []


def systemctl(_: Stage, words: list[str]) -> None:
    """There is no systemd here: verb and options must be known, and the unit be ours, which a unit test verifies."""
    known = help_of("systemctl")
    verb, *units = [word for word in words[1:] if not word.startswith("-")]
    assert not known or [word for word in (verb, *options_in(words)) if word not in known] == []
    assert all((ROOT / "worker" / "systemd" / f"{unit}.service").exists() for unit in units)


def compose(_: Stage, words: list[str]) -> None:
    """There is no Docker here: the file and its services must be there."""
    file = words[words.index("-f") + 1]
    services = yaml.safe_load((ROOT / file).read_text())["services"]
    if "exec" in words:
        assert words[words.index("exec") + 1] in services


RULES: list[tuple[str, Run]] = [
    (r"airflow db migrate", migrate),
    (r"airflow dags unpause \w+", alone),
    (r"airflow dags trigger \w+", trigger),
    (r"airflow edge token create .*", create_token),
    (r"airflow edge token (list|rotate|revoke)\b.*", alone),
    (r"airflow edge workers remove .*", edge_gone),
    (r"airflow edge workers shutdown .*", edge_shutdown),
    (r"airflow edge workers maintenance off .*", edge_resting),
    (r"airflow edge workers list 'site-\*' --state .*", alone),
    (r"airflow edge workers (list|show|maintenance|queues|concurrency)\b.*", edge_connected),
    (r"airflow edge (jobs|queues)\b.*", alone),
    (r"airflow edge worker .*", start_by_airflow),
    (r"airflow edge api .*", once(serve)),
    (r"(/opt/\S+/bin/)?edge-worker start .*", start_worker),
    (r"edge-worker status .*", local),
    (r"edge-worker (stop|drain) .*", local_end),
    (r"\(umask 077 && cat > .*\)", paste_token),
    (r"curl -sS \S+/edge_worker/(readyz|livez)", ready),
    (r"install (-d|-m \d+ \S+) \S+", plain),
    (r"du -sh DIR", plain),
    (r"python3 -m venv \S+", once(plain)),
]
NOT_RUN: list[tuple[str, Run]] = [
    (r"export .*", export),
    (r"(/opt/\S+/bin/)?pip (install|uninstall) .*", pip),
    (r"make .*", make),
    (r"useradd .*", useradd),
    (r"systemctl .*", systemctl),
    (r"docker compose .*", compose),
]


# Said by Airflow's module of `airflow dags`.
@pytest.mark.filterwarnings("ignore:Could not import graphviz")
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_every_command_of_a_page_does_what_it_should(stage: Stage, page: str) -> None:
    for command in commands(page):
        known = [run for pattern, run in (*RULES, *NOT_RUN) if re.fullmatch(pattern, command)]
        assert known, f"{page}: no rule knows how to run: {command}"
        known[0](stage, stage.placed(command))


def test_each_rule_is_for_a_command_that_there_is() -> None:
    every = [command for page in PAGES for command in commands(page)]
    idle = [pattern for pattern, _ in (*RULES, *NOT_RUN) if not any(re.fullmatch(pattern, c) for c in every)]
    assert idle == []


def test_the_dag_of_the_first_worker_is_the_one_that_was_run(rig: Rig) -> None:
    (block,) = [block for block in blocks("docs/first-worker.md") if block.language == "python"]
    assert (rig.cluster.dags / "first_edge_task.py").read_text() == block.text
