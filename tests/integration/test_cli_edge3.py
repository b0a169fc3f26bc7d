"""The names of edge3's commands: they do the same as ours, and the local ones reach the daemon on this machine."""

from __future__ import annotations

import pytest
from airflow_commands import airflow, well
from rows import register_as

from edge_otel.models import workers
from edge_otel.models.tables import Worker

EDGE3 = {
    "worker": ["-c", "-q", "-t", "-H", "--pid", "-v", "-D", "--stdout", "--stderr", "-l", "-u"],
    "status": ["--pid", "-v"],
    "maintenance": ["-c", "-w", "--pid", "-v"],
    "stop": ["-w", "--pid", "-v"],
    "list-workers": ["-o", "-s", "--worker-name-pattern", "-q"],
    "remote-edge-worker-request-maintenance": ["-H", "-c"],
    "remote-edge-worker-exit-maintenance": ["-H"],
    "remote-edge-worker-update-maintenance-comment": ["-H", "-c"],
    "remove-remote-edge-worker": ["-H"],
    "shutdown-remote-edge-worker": ["-H"],
    "add-worker-queues": ["-H", "-q"],
    "remove-worker-queues": ["-H", "-q"],
    "shutdown-all-workers": ["-y"],
    "set-worker-concurrency": ["-H", "-c"],
}
"""Every command of edge3 5.1.0, with its options."""


@pytest.mark.parametrize("command", EDGE3)
def test_each_command_of_edge3_is_there_with_its_options(here, command):
    ran = here(command, "--help")
    assert ran.code == 0
    assert f"Usage: airflow edge {command}" in ran.out
    words = ran.out.replace(",", " ").split()
    assert [option for option in EDGE3[command] if option not in words] == []


def test_workers_are_changed_by_the_names_of_edge3(fleet, here):
    with fleet() as session:
        register_as(session, "idle", "w", queues=["a"])
    name = ("-H", "w")
    asked = [
        (("remote-edge-worker-request-maintenance", *name, "-c", "disks"), "w: maintenance request"),
        (("remote-edge-worker-update-maintenance-comment", *name, "--comments", "later"), "w: comment: later"),
        (("remote-edge-worker-exit-maintenance", "--edge-hostname", "w"), "w: maintenance exit"),
        (("add-worker-queues", *name, "-q", "b,c"), "w: queues: a, b, c"),
        (("remove-worker-queues", *name, "-q", "a"), "w: queues: b, c"),
        (("set-worker-concurrency", *name, "-c", "9"), "w: 9 slots"),
        (("shutdown-remote-edge-worker", *name), "w: shutdown request"),
    ]
    for arguments, told in asked:
        assert well(here(*arguments)) == told
    assert here("remove-remote-edge-worker", *name).code.startswith("Error: w: Worker 'w' is in state")
    with fleet() as session:
        session.get(Worker, "w").state = "offline"
    assert well(here("remove-remote-edge-worker", *name)) == "w: removed"
    assert here("remove-remote-edge-worker", *name).code == "Error: w: No worker of this name is registered."


def test_workers_are_listed_by_the_name_of_edge3(fleet, here):
    with fleet() as session:
        register_as(session, "idle", "site7-a", queues=["a"])
        register_as(session, "offline", "site7-b", queues=["b"])
        register_as(session, "running", "site9", queues=["b"])

    def listed(*arguments):
        return [row["name"] for row in well(here("list-workers", "-o", "json", *arguments))]

    assert listed() == ["site7-a", "site7-b", "site9"]
    assert listed("--worker-name-pattern", "site7-*") == ["site7-a", "site7-b"]
    assert listed("-s", "running", "idle") == ["site7-a", "site9"]
    assert listed("-q", "b,c") == ["site7-b", "site9"]
    assert listed("--worker-name-pattern", "site9") == ["site9"]
    assert listed("--worker-name-pattern", "nobody") == []


def test_all_that_are_connected_are_shut_down_after_a_yes(fleet, here):
    with fleet() as session:
        for name, state in (("w", "idle"), ("x", "running"), ("gone", "offline"), ("lost", "unknown")):
            register_as(session, state, name)
    assert "shutdown: 2 workers meant (w, x)." in here("shutdown-all-workers").code
    assert here("shutdown-all-workers", "-y").code == 0
    with fleet() as session:
        states = {worker.name: worker.state for worker in workers.every(session)}
    assert states == {"w": "shutdown request", "x": "shutdown request", "gone": "offline", "lost": "unknown"}
    assert here("shutdown-all-workers", "--yes").code == 0


def test_all_is_asked_also_where_it_is_one_and_done_where_it_is_none(fleet, here):
    with fleet() as session:
        register_as(session, "idle", "w")
    assert "shutdown: 1 worker meant (w)." in here("shutdown-all-workers").code
    with fleet() as session:
        assert session.get(Worker, "w").state == "idle"
        session.get(Worker, "w").state = "offline"
    ran = here("shutdown-all-workers", "-y", "-o", "json")
    assert (ran.code, well(ran), ran.err) == (0, [], "No worker is connected.\n")


@pytest.mark.parametrize("option", ["-D", "--daemon"])
def test_a_worker_in_the_background_is_refused_with_what_to_do(here, option):
    ran = here("worker", option)
    assert ran.code.startswith("Error: --daemon: the worker stays in the foreground. Let systemd")


def test_options_that_are_not_used_are_named(airflow_site, tmp_path):
    options = {
        "API_URL": "http://127.0.0.1:1/edge_worker",
        "TOKEN_FILE": f"{tmp_path}/none",
        "STATE_DIR": f"{tmp_path}",
    }
    env = airflow_site | {f"AIRFLOW__EDGE__{name}": value for name, value in options.items()}
    ran = airflow(env, "edge", "worker", "--pid", "p", "--log-file", "l")
    assert ran.stderr.splitlines()[:2] == [
        "--pid is not used, and does nothing.",
        "--log-file is not used, and does nothing.",
    ]
    assert ran.returncode == 2, "the daemon, which has taken over, ends for its own reason"
    assert f"{tmp_path}/none" in ran.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", [("status",), ("stop",), ("maintenance", "off")])
def test_a_local_command_without_a_daemon_says_so(airflow_site, tmp_path, command):
    ran = airflow(airflow_site | {"AIRFLOW__EDGE__STATE_DIR": str(tmp_path)}, "edge", *command, "--pid", "x", "-v")
    assert ran.returncode == 2
    assert f"edge-worker: no edge-worker answers in {tmp_path}" in ran.stderr


def test_maintenance_of_the_local_worker_needs_a_comment(here):
    assert here("maintenance", "on").code == "Error: --comments is missing: say why, for those who look centrally"
