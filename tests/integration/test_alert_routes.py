"""Who is told of what, by a real Alertmanager with our routes."""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import ExitStack

import pytest
import requests
import yaml
from acceptance.alert_receiver import Receiver
from tools import missing

from dashboards import rules
from demo.prometheus import PROVISIONING, Alertmanager, why_prometheus_cannot_run
from demo.wait import wait_for

CONFIGURATION = PROVISIONING / "alertmanager.yml"
ALERTS = {alert.name: alert for alert in rules.alerts()}


@pytest.fixture
def amtool():
    """Run amtool, and return what it prints."""
    if shutil.which("amtool") is None:
        missing("amtool is not installed: apt-get install prometheus-alertmanager")

    def run(*arguments):
        done = subprocess.run(["amtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def site(tmp_path):
    """A running Alertmanager that does not wait, and what its receivers get."""
    if reason := why_prometheus_cannot_run():
        missing(reason)
    with ExitStack() as owned:
        receiver = Receiver()
        owned.callback(receiver.stop)
        alertmanager = Alertmanager(tmp_path, tmp_path, receiver.configuration(tmp_path, 0.01))
        owned.callback(alertmanager.stop)
        yield alertmanager, receiver


def test_amtool_finds_nothing_wrong(amtool):
    amtool("check-config", CONFIGURATION)


@pytest.mark.parametrize("alert", ALERTS.values(), ids=list(ALERTS))
def test_what_is_critical_goes_to_the_pager_and_what_is_not_becomes_a_ticket(amtool, alert):
    labels = [f"alertname={alert.name}", f"severity={alert.severity}"]
    wanted = {"critical": "pager", "warning": "tickets"}[alert.severity]
    amtool("config", "routes", "test", f"--config.file={CONFIGURATION}", f"--verify.receivers={wanted}", *labels)


def test_every_alert_that_a_rule_of_silence_names_exists():
    given = yaml.safe_load(CONFIGURATION.read_text())
    matchers = [m for rule in given["inhibit_rules"] for m in (*rule["source_matchers"], *rule["target_matchers"])]
    named = {name for matcher in matchers for name in re.findall(r"\bEdge\w+\b", matcher)} - {"Edge"}
    assert named
    assert named <= set(ALERTS)


def alert(name, **labels):
    return {"labels": {"alertname": name, "severity": ALERTS[name].severity, **labels}}


def about(labels):
    """Return which alert it is, without its severity."""
    return " ".join(labels[name] for name in ("alertname", "worker", "queue", "team") if name in labels)


def suppressed(alertmanager):
    """Return which alerts are silent because of others, or None while one is not processed yet."""
    answer = requests.get(f"{alertmanager.url}/api/v2/alerts", timeout=10).json()
    if any(one["status"]["state"] == "unprocessed" for one in answer):
        return None
    return {about(one["labels"]) for one in answer if one["status"]["inhibitedBy"]}


@pytest.mark.parametrize(
    ("firing", "silent"),
    [
        (
            [
                alert("EdgeWorkerLost", worker="w", team="t"),
                alert("EdgeHeartbeatStale", worker="w", team="t"),
                alert("EdgeHeartbeatStale", worker="other", team="t"),
                alert("EdgeDiskFilling", worker="w"),
                alert("EdgeQueueWithoutWorkers", queue="q"),
            ],
            {"EdgeDiskFilling w", "EdgeHeartbeatStale w t"},
        ),
        (
            [
                alert("EdgeFleetMetricsAbsent"),
                alert("EdgeWorkerCannotReachApi", worker="w", edge_worker_name="w"),
                alert("EdgeApiErrors", route="/v1/health"),
            ],
            {"EdgeWorkerCannotReachApi w"},
        ),
        (
            [
                alert("EdgeFleetSnapshotStale"),
                alert("EdgeWorkerLost", worker="w"),
                alert("EdgeQueueWithoutWorkers", queue="q"),
            ],
            {"EdgeWorkerLost w"},
        ),
        (
            [
                alert("EdgeQueueWithoutWorkers", queue="q", team="t"),
                alert("EdgeQueueWaitHigh", queue="q", team="t"),
                alert("EdgeQueueWaitHigh", queue="q", team="u"),
                alert("EdgeFailureRatioHigh", queue="q"),
            ],
            {"EdgeQueueWaitHigh q t"},
        ),
        (
            [alert("EdgeQueueWithoutWorkers", queue="q"), alert("EdgeJobStuckInAssignment", queue="q")],
            set(),
        ),
        ([alert("EdgeApiErrors", route="/v2/jobs/{job_id}/log"), alert("EdgeWorkerLost", worker="w")], set()),
    ],
    ids=[
        "lost worker",
        "no metrics",
        "old snapshot",
        "nobody works",
        "offers that nobody takes back",
        "errors of one route",
    ],
)
def test_consequences_are_silent_and_nothing_else_is(site, firing, silent):
    alertmanager, receiver = site
    # Consequences last: Alertmanager tells those at once whose cause it has not heard of.
    for one in firing:
        requests.post(f"{alertmanager.url}/api/v2/alerts", json=[one], timeout=10).raise_for_status()
    loud = len(firing) - len(silent)
    wait_for(lambda: len({about(one.labels) for one in receiver.told()}) >= loud, "the messages", timeout=10)
    assert suppressed(alertmanager) == silent
    assert {about(one.labels) for one in receiver.told()} == {about(one["labels"]) for one in firing} - silent
