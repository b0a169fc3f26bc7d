"""The runbooks, against what they speak of: alerts and their numbers, queries."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from tools import missing

from dashboards import prometheus, recorded, rules
from edge_otel.telemetry import names

TEXT = (Path(__file__).parents[2] / "docs" / "runbooks.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
ALERTS = {alert.name: alert for alert in rules.alerts()}


def blocks(kind):
    """Return the lines of the blocks of one language, without comments."""
    lines = "".join(re.findall(rf"^```{kind}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)).splitlines()
    return sorted({line.partition("#")[0].strip() for line in lines} - {""})


QUERIES = blocks("promql")


def test_each_alert_has_a_section_and_each_section_an_alert():
    assert sorted(SECTIONS) == sorted(ALERTS)
    assert {alert.rule(1.0)["annotations"]["runbook_url"] for alert in ALERTS.values()} == {
        f"docs/runbooks.md#{title.lower()}" for title in SECTIONS
    }


@pytest.mark.parametrize("alert", ALERTS.values(), ids=list(ALERTS))
def test_a_section_tells_severity_and_numbers_of_its_alert_and_what_to_look_at_and_to_do(alert):
    section = SECTIONS[alert.name]
    assert section.startswith(f"{alert.heading}\n")
    assert "**Look.**" in section
    assert "**Do.**" in section


def test_promtool_can_read_every_query(tmp_path):
    if shutil.which("promtool") is None:
        missing("promtool is not installed: apt-get install prometheus")
    group = {"name": "looks", "rules": [{"record": f"look{n}", "expr": query} for n, query in enumerate(QUERIES)]}
    file = tmp_path / "looks.yaml"
    file.write_text(yaml.safe_dump({"groups": [group]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_query_is_about_metrics_and_labels_that_there_are():
    parts = {"histogram": ("_bucket", "_count", "_sum")}
    known = {prometheus.name(m) + part for m in names.METRICS for part in parts.get(m.kind, ("",))}
    labels = {label for metric in names.METRICS for label in prometheus.labels(metric)}
    rates = {rule["record"] for rule in recorded.rules(1.0)}
    words = {word for query in QUERIES for word in re.findall(r"\b[a-z]+(?:_\w+|:[\w:]+)+", query)}
    functions = {"histogram_quantile"}
    assert words - known - labels - rates - functions == set()


def test_every_link_leads_to_a_section():
    assert set(re.findall(r"\]\(#(\w+)\)", TEXT)) <= {title.lower() for title in SECTIONS}
