"""The rules of Grafana's dashboard-linter, under the names that it has for them.

Not here: template-job-rule, template-instance-rule, target-job-rule, target-instance-rule; dashboards/out/.lint says
why.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import promql_parser as promql
import pytest
from board_files import BOARDS, PANELS, VALUES, Panel, choices, filled

from dashboards import prometheus
from dashboards.sdk import units
from edge_otel.telemetry import names

each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=list(BOARDS))
each_panel = pytest.mark.parametrize("panel", PANELS, ids=str)
UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}
COUNTERS = {prometheus.name(metric) for metric in names.METRICS if metric.kind == "counter"}
KINDS = ("prometheus", "loki", "tempo")
RATE_INTERVAL = timedelta(seconds=int(VALUES["__rate_interval"].removesuffix("s")))
LOGQL = re.compile(r'\{\w+="[^"]+"\}( \| \w+=~?"[^"]+")*')
"""As much of LogQL as is used here: one stream, and filters on labels."""


def calls(node: Any, within: str = "") -> list[tuple[str, Any]]:
    """Return every selector in a query, with the function that it is the argument of."""
    if isinstance(node, promql.MatrixSelector | promql.VectorSelector):
        return [(within, node)]
    if isinstance(node, promql.Call):
        return [found for argument in node.args for found in calls(argument, node.func.name)]
    inner = [getattr(node, side) for side in ("expr", "lhs", "rhs") if hasattr(node, side)]
    return [found for side in inner for found in calls(side)]


@each_board
def test_template_datasource_rule(board):
    found = {variable["name"]: (variable["query"], variable["label"]) for variable in choices(board, "datasource")}
    assert found == {f"{kind}_datasource": (kind, f"{kind.title()} data source") for kind in KINDS}
    assert choices(board, "datasource")[0]["query"] == "prometheus", "the linter looks at the first"


@each_board
def test_template_label_promql_rule(board):
    for variable in choices(board, "query"):
        asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
        assert asked, variable["query"]
        promql.parse(filled(asked[1]))


@each_board
def test_template_on_time_change_reload_rule(board):
    assert {variable["refresh"] for variable in choices(board, "query")} <= {2}


@each_board
def test_uneditable_dashboard(board):
    assert board["editable"] is False


@each_panel
def test_panel_datasource_rule(panel: Panel):
    for source in (panel.json["datasource"], *(target["datasource"] for target in panel.targets)):
        assert source == {"type": source["type"], "uid": f"${{{source['type']}_datasource}}"}
        assert source["type"] in KINDS


@each_panel
def test_panel_title_description_rule(panel: Panel):
    assert panel.json["title"]
    assert panel.json["description"].endswith("."), "a sentence"


@each_panel
def test_panel_units_rule(panel: Panel):
    overrides = [said for of in panel.overrides for said in of["properties"]]
    said = [override["value"] for override in overrides if override["id"] == "unit"]
    if panel.json["type"] != "logs":
        said.append(panel.json["fieldConfig"]["defaults"]["unit"])
    assert set(said) <= UNITS


@each_panel
def test_panel_no_targets_rule(panel: Panel):
    assert panel.targets
    references = [target["refId"] for target in panel.targets]
    assert len(set(references)) == len(references)


@each_panel
def test_target_promql_rule(panel: Panel):
    for expr in panel.promql():
        promql.parse(expr)


@each_panel
def test_target_logql_rule_and_target_logql_auto_rule(panel: Panel):
    for target in panel.targets:
        if target["datasource"]["type"] == "loki":
            assert LOGQL.fullmatch(filled(target["expr"])), "parse what is new here, and $__auto for its ranges"


@each_panel
def test_target_rate_interval_rule(panel: Panel):
    for expr in panel.promql():
        windows = {of.range for function, of in calls(promql.parse(expr)) if function in ("rate", "irate")}
        assert windows <= {RATE_INTERVAL}


@each_panel
def test_target_counter_agg_rule(panel: Panel):
    for expr in panel.promql():
        for function, selector in calls(promql.parse(expr)):
            vector = getattr(selector, "vector_selector", selector)
            assert (vector.name in COUNTERS) <= (function in ("rate", "increase")), expr
