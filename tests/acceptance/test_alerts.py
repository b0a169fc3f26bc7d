"""Real faults, and what a real Prometheus and Alertmanager make of them, with a hundredth of our patience."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import requests
from tools import missing

from acceptance.alert_receiver import Receiver, Told
from acceptance.rig import Rig
from dashboards import rules
from demo.prometheus import Alertmanager, Prometheus, why_prometheus_cannot_run
from demo.wait import NotSeen

SCALE = 0.01


class Duty:
    """Somebody on call for a site."""

    def __init__(self, rig: Rig, prometheus: Prometheus, receiver: Receiver) -> None:
        self._rig, self._prometheus, self._receiver = rig, prometheus, receiver

    def hears(self, status: str, alert: str, **labels: str) -> Told:
        """Return the message with this status about an alert, when it has come."""

        def found() -> Told | None:
            told = self._receiver.told(alertname=alert, **labels)
            return next((one for one in told if one.status == status), None)

        try:
            return self._rig.wait(found, f"{alert} {labels} to arrive as {status}.", 30)
        except NotSeen as late:
            raise NotSeen(f"{late} Told: {self._receiver.told()} Fires: {self.firing()}") from None

    def heard(self, **labels: str) -> set[tuple[str, str]]:
        """Return receiver and alert of all messages so far about these labels."""
        return {(one.receiver, one.labels["alertname"]) for one in self._receiver.told(**labels)}

    def firing(self) -> list[str]:
        """Return what fires in Prometheus now, or is about to."""
        return [str(one["metric"]) for one in self._prometheus.query("ALERTS")]


def knows_alertmanager(prometheus: Prometheus) -> bool:
    """Return whether Prometheus has one to send alerts to."""
    answer = requests.get(f"{prometheus.url}/api/v1/alertmanagers", timeout=10).json()
    return bool(answer["data"]["activeAlertmanagers"])


@pytest.fixture(scope="module")
def duty(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Duty]:
    """Prometheus and Alertmanager beside the site, and who is told."""
    tmp_path = tmp_path_factory.mktemp("alerts")
    if reason := why_prometheus_cannot_run():
        missing(reason)
    soon = tmp_path / "soon.rules.yaml"
    soon.write_text(rules.text(SCALE))
    with ExitStack() as owned:
        receiver = Receiver()
        owned.callback(receiver.stop)
        alertmanager = Alertmanager(tmp_path, tmp_path, receiver.configuration(tmp_path, SCALE))
        owned.callback(alertmanager.stop)
        edge = f"127.0.0.1:{rig.cluster.port}"
        prometheus = Prometheus(
            tmp_path, tmp_path, edge=edge, alertmanager=alertmanager.address, rules=soon, interval="1s"
        )
        owned.callback(prometheus.stop)
        # An alert that fires before it knows to whom to tell it is told a minute later.
        rig.wait(lambda: knows_alertmanager(prometheus), "Prometheus to find its Alertmanager")
        yield Duty(rig, prometheus, receiver)


def test_a_killed_worker_is_told_of_until_it_returns_and_parked_ones_are_not(rig: Rig, duty: Duty) -> None:
    killed, serviced, stopped = (rig.new_worker(name) for name in ("killed", "serviced", "stopped-in-order"))
    for worker in (killed, serviced, stopped):
        worker.start()
    for worker in (killed, serviced, stopped):
        rig.wait_worker(worker.name, "idle")
    assert rig.local(serviced, "maintenance", "on", "--comment", "new disks").returncode == 0
    rig.wait_worker("serviced", "maintenance mode")
    rig.cluster.end("stopped-in-order")
    # Its machine is switched off: it is as silent as the one that is killed.
    rig.kill_site(serviced)
    rig.kill_site(killed)

    ticket = duty.hears("firing", "EdgeHeartbeatStale", worker="killed")
    assert ticket.receiver == "tickets"
    assert "killed" in ticket.annotations["summary"]
    assert "killed was" in ticket.annotations["description"]
    assert ticket.annotations["runbook_url"].endswith("runbooks.md#edgeheartbeatstale")
    assert ticket.annotations["dashboard_url"].endswith("var-worker=killed")
    page = duty.hears("firing", "EdgeWorkerLost", worker="killed")
    assert (page.receiver, page.labels["severity"]) == ("pager", "critical")
    rig.wait_worker("serviced", "offline maintenance")
    for parked in ("serviced", "stopped-in-order"):
        assert duty.heard(worker=parked) & {("pager", "EdgeWorkerLost"), ("tickets", "EdgeHeartbeatStale")} == set()

    killed.start()
    rig.wait_worker("killed", "idle")
    duty.hears("resolved", "EdgeWorkerLost", worker="killed")
    duty.hears("resolved", "EdgeHeartbeatStale", worker="killed")


def test_a_queue_on_which_nobody_works_is_told_of_until_somebody_does(rig: Rig, duty: Duty) -> None:
    run_id = rig.trigger("elsewhere")
    page = duty.hears("firing", "EdgeQueueWithoutWorkers", queue="other")
    assert page.receiver == "pager"
    assert page.annotations["description"] == "1 jobs wait in queue other, and no worker takes jobs of it."
    with rig.running("helper", queues="other"):
        assert rig.finish("elsewhere", run_id) == "success"
        duty.hears("resolved", "EdgeQueueWithoutWorkers", queue="other")


def test_a_burst_of_failures_is_told_of_until_it_is_over(rig: Rig, duty: Duty) -> None:
    with rig.running("clumsy", concurrency=8):
        run_id = rig.trigger("bursting")
        ticket = duty.hears("firing", "EdgeFailureRatioHigh", queue="default")
        assert ticket.receiver == "tickets"
        assert ticket.annotations["description"].startswith("100% of the jobs of queue default")
        assert rig.finish("bursting", run_id) == "failed"
        duty.hears("resolved", "EdgeFailureRatioHigh", queue="default")


def test_metrics_that_vanish_are_told_of_until_they_are_back(rig: Rig, duty: Duty) -> None:
    api = rig.cluster.processes["api-server"].pid
    os.killpg(api, signal.SIGSTOP)
    try:
        page = duty.hears("firing", "EdgeFleetMetricsAbsent")
    finally:
        os.killpg(api, signal.SIGCONT)
    assert page.receiver == "pager"
    assert "edge_fleet_snapshot_age_seconds" in page.annotations["description"]
    duty.hears("resolved", "EdgeFleetMetricsAbsent")
