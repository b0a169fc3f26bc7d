"""The alert rules, as promtool judges them on made-up series."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import alert_cases_api
import alert_cases_queues
import alert_cases_sites
import alert_cases_workers
import pytest
import yaml
from tools import missing

from dashboards import rules, thresholds, worker_alerts
from edge_otel.state import IN_MAINTENANCE, WorkerState
from edge_otel.telemetry import names

OUT = Path(rules.__file__).parent / "out"
ALERTS = {alert.name: alert for alert in rules.alerts()}
CASES = [
    *alert_cases_workers.CASES,
    *alert_cases_sites.CASES,
    *alert_cases_queues.CASES,
    *alert_cases_api.CASES,
]


@pytest.fixture
def promtool():
    """Run promtool, and fail with what it says when it is not content."""
    if shutil.which("promtool") is None:
        missing("promtool is not installed: apt-get install prometheus")

    def run(*arguments):
        done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            pytest.fail(done.stdout + done.stderr, pytrace=False)

    return run


def test_the_rule_file_is_current():
    assert (OUT / rules.FILE).read_text() == rules.text(), "run python -m dashboards.build"


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_promtool_finds_nothing_wrong(promtool, tmp_path, scale):
    file = tmp_path / rules.FILE
    file.write_text(rules.text(scale))
    promtool("check", "rules", "--lint=all", "--lint-fatal", file)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_fires_when_it_should_and_only_then(promtool, tmp_path, alert):
    groups = rules.rules()["groups"]
    for group in groups:
        # It alone: each of the others would be evaluated as often.
        group["rules"] = [rule for rule in group["rules"] if rule.get("alert", alert) == alert]
    (tmp_path / rules.FILE).write_text(json.dumps({"groups": groups}))
    for step in {case.step for case in CASES if case.alert == alert}:
        tests = {
            "rule_files": [rules.FILE],
            "evaluation_interval": f"{step}s",
            "group_eval_order": [group["name"] for group in groups],
            "tests": [
                case.written(ALERTS[alert].severity) for case in CASES if case.alert == alert and case.step == step
            ],
        }
        file = tmp_path / "tests.yaml"
        file.write_text(json.dumps(tests))
        promtool("test", "rules", file)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_a_case_that_fires_and_one_that_never_does(alert):
    cases = [case for case in CASES if case.alert == alert]
    assert any(any(case.fires.values()) for case in cases)
    assert any(not any(case.fires.values()) for case in cases)


@pytest.mark.parametrize("alert", ALERTS.values(), ids=list(ALERTS))
def test_an_alert_is_complete(alert):
    rule = alert.rule(1.0)
    assert rule["labels"] == {"severity": alert.severity}
    assert alert.severity in (thresholds.CRITICAL, thresholds.WARNING)
    assert rule["for"] != "0s"
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert all(rule["annotations"].values())
    assert "{{" not in alert.when, "the runbook has no values"


def test_links_of_alerts_lead_to_dashboards_that_exist():
    boards = {board["uid"]: board for board in map(json.loads, map(Path.read_text, OUT.glob("*.json")))}
    for alert in ALERTS.values():
        uid, _, query = alert.dashboard.removeprefix("/d/").partition("?")
        variables = {variable["name"] for variable in boards[uid]["templating"]["list"]}
        assert {part.partition("=")[0].removeprefix("var-") for part in query.split("&") if part} <= variables


def test_every_number_belongs_to_one_alert():
    limits = {name for name, value in vars(thresholds).items() if isinstance(value, thresholds.Limit)}
    used = [name for name in limits for alert in ALERTS.values() if alert.limit is getattr(thresholds, name)]
    assert sorted(used) == sorted(limits)


def test_parked_are_the_workers_in_maintenance_and_those_stopped_in_order():
    assert set(worker_alerts.PARKED) == {state.value for state in IN_MAINTENANCE | {WorkerState.OFFLINE}}
    assert set(worker_alerts.PARKED) < set(names.STATE_CODES)


def test_a_scale_is_on_every_for_and_every_window_and_on_no_name():
    real, fast = (
        [rule for group in yaml.safe_load(rules.text(scale))["groups"] for rule in group["rules"]]
        for scale in (1.0, 0.01)
    )
    for slow_rule, fast_rule in zip(real, fast, strict=True):
        assert slow_rule.get("for", "") != fast_rule.get("for") or "alert" not in slow_rule
        assert slow_rule.get("alert", slow_rule.get("record")) == fast_rule.get("alert", fast_rule.get("record"))
        # A day is how long the name of a scrape job is known.
        looks_back = "[" in slow_rule["expr"].replace("[1d]", "")
        assert looks_back == (slow_rule["expr"] != fast_rule["expr"])
