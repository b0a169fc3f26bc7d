"""The dashboards: current, whole, and about what exists."""

from __future__ import annotations

import re
import sys
from itertools import combinations

import pytest
import yaml
from board_files import BOARDS, PANELS, VARIABLE, Panel, choices, filled, texts
from promql_labels import NONE, SCRAPED, known, labels

from dashboards import build, jobs, links, rules, states
from dashboards.variables import TEAM
from edge_otel.telemetry import names

ALERT = SCRAPED | {"alertname", "severity", "worker", "queue"}
SERIES = {**known(), "ALERTS": ALERT | {"alertstate"}, "ALERTS_FOR_STATE": ALERT}
UIDS = (links.FLEET, links.JOBS, links.WORKER, links.TRANSPORT)
each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=list(BOARDS))
each_panel = pytest.mark.parametrize("panel", PANELS, ids=str)
RULES = [rule for group in rules.rules()["groups"] for rule in group["rules"]]


def results(panel: Panel) -> frozenset[str]:
    """Return the labels that the results of a panel's queries have between them."""
    return NONE.union(*(labels(expr, SERIES) for expr in panel.promql()))


def test_what_is_generated_is_current(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["build", "--check"])
    assert build.main() == 0, capsys.readouterr().err
    assert {path.name for path in build.OUT.glob("[!.]*")} == set(build.FILES)


def test_check_names_the_file_that_differs_and_writes_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(build, "OUT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["build"])
    assert build.main() == 0
    (tmp_path / "jobs.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["build", "--check"])
    assert build.main() == 1
    said = capsys.readouterr().err
    assert said == "dashboards/out/jobs.json is not what the code says: run python -m dashboards.build\n"
    assert (tmp_path / "jobs.json").read_text() == "{}"


@each_panel
def test_every_metric_and_label_of_a_query_exists_and_what_is_compared_can_match(panel: Panel):
    found = results(panel)
    for target in panel.targets:
        said = re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", ""))
        assert set(said) <= labels(filled(target["expr"]), SERIES) if said else True
    for override in panel.overrides:
        if override["matcher"]["id"] == "byName":
            column = override["matcher"]["options"]
            columns = {f"Value #{target['refId']}" for target in panel.targets} | {"Time", "Value"}
            assert column in columns | found | set(names.STATE_CODES)


@pytest.mark.parametrize("rule", RULES, ids=[rule.get("alert", rule.get("record")) for rule in RULES])
def test_every_metric_and_label_of_a_rule_exists_and_what_is_compared_can_match(rule):
    recorded: dict[str, frozenset[str]] = {}
    for other in RULES:
        if "record" in other:
            recorded[other["record"]] = labels(other["expr"], SERIES | recorded)
    found = labels(rule["expr"], SERIES | recorded)
    assert set(re.findall(r"\$labels\.(\w+)", yaml.dump(rule))) <= found


@each_panel
def test_a_column_of_values_is_one_of_the_table(panel: Panel):
    values = [of["matcher"]["options"] for of in panel.overrides]
    assert ("Value" in values) <= (len(panel.targets) == 1)


@each_panel
def test_every_attribute_in_logs_and_traces_exists(panel: Panel):
    attributes = {value for value in vars(names).values() if isinstance(value, names.Attribute)}
    flat = {attribute.replace(".", "_") for attribute in attributes} | {"severity_text"}
    for target in panel.targets:
        if target["datasource"]["type"] == "loki":
            assert set(re.findall(r"(\w+)=", target["expr"])) <= flat
        if target["datasource"]["type"] == "tempo":
            assert set(re.findall(r"(?:span|resource)\.([\w.]+)", target["query"])) <= attributes


def test_outcomes_and_services_that_are_asked_for_exist():
    assert set(jobs.BAD.split("|")) < set(names.JOB_OUTCOME.values)
    assert jobs.TASKS in names.SERVICE_NAME.values


@each_board
def test_variables_are_used_and_what_is_used_is_a_variable(board):
    own = {variable["name"] for variable in choices(board, "query")}
    sources = {variable["name"] for variable in choices(board, "datasource")}
    used = {name for text in texts(board) for name in VARIABLE.findall(text) if not name.startswith("__")}
    assert own <= used <= own | sources
    assert all(variable["includeAll"] == variable["multi"] for variable in choices(board, "query"))
    assert all(variable["allValue"] == ".*" for variable in choices(board, "query") if variable["name"] in TEAM)


def test_all_that_is_used_of_the_product_are_its_names():
    used = set()
    for file in build.OUT.parent.glob("*.py"):
        used |= set(re.findall(r"^\s*(?:from|import) (edge_\w+[^#\n]*)", file.read_text(), re.MULTILINE))
    assert used == {"edge_otel.telemetry import names"}


def test_uids_never_change():
    assert {name: board["uid"] for name, board in BOARDS.items()} == {
        "fleet": "edge-fleet",
        "jobs": "edge-jobs",
        "worker": "edge-worker",
        "transport": "edge-transport",
    }


@each_board
def test_a_dashboard_is_in_utc_and_leads_to_the_others_with_time_and_variables(board):
    assert board["timezone"] == "utc"
    (menu,) = board["links"]
    assert (menu["type"], menu["keepTime"], menu["includeVars"]) == ("dashboards", True, True)
    assert menu["tags"] == board["tags"]


def test_what_the_menu_hands_on_is_a_choice_of_the_same_kind():
    kinds: dict[str, set[tuple[object, ...]]] = {}
    for board in BOARDS.values():
        for variable in choices(board, "query"):
            kinds.setdefault(variable["name"], set()).add((variable["query"], variable["multi"]))
    assert {name: of for name, of in kinds.items() if len(of) > 1} == {}


@each_board
def test_panels_have_numbers_of_their_own_and_do_not_overlap(board):
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    places = [(panel["title"], panel["gridPos"]) for panel in board["panels"]]
    for (one, a), (other, b) in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert beside or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"], f"{one} is over {other}"
    assert all(place["x"] + place["w"] <= 24 for _, place in places)


@each_panel
def test_a_link_leads_to_a_dashboard_that_has_its_variables_and_takes_values_that_are_there(panel: Panel):
    for url in (text for text in texts(panel.json.get("fieldConfig")) if text.startswith("/d/")):
        uid, _, query = url.removeprefix("/d/").partition("?")
        looks = re.findall(r'"look", "([^"]+)"', " ".join(panel.promql())) if uid.startswith("$") else [uid]
        assert looks
        assert set(looks) <= set(UIDS)
        there = {
            variable["name"]
            for name in BOARDS
            for variable in BOARDS[name]["templating"]["list"]
            if BOARDS[name]["uid"] in looks
        }
        assert set(re.findall(r"var-(\w+)=", query)) | set(re.findall(r"\{(\w+):queryparam", query)) <= there
        assert "${__url_time_range}" in query
        assert set(re.findall(r"__(?:data\.fields|field\.labels)\.(\w+)", url)) <= results(panel)


def test_every_state_has_a_name_and_a_colour_of_its_own():
    assert len(set(states.COLOURS.values())) == len(names.STATE_CODES)
    timelines = [panel for panel in PANELS if panel.json["type"] == "state-timeline"]
    assert [panel.board for panel in timelines] == ["fleet", "worker"]
    for panel in timelines:
        (mapping,) = panel.json["fieldConfig"]["defaults"]["mappings"]
        shown = {said["text"]: int(code) for code, said in mapping["options"].items()}
        assert shown == names.STATE_CODES
        assert {said["text"]: said["color"] for said in mapping["options"].values()} == states.COLOURS


def test_exemplars_are_asked_for_where_there_are_some():
    with_traces = {names.JOB_QUEUE_SECONDS.name, names.JOB_RUN_SECONDS.name}
    asked = {target["expr"] for panel in PANELS for target in panel.targets if target.get("exemplar")}
    assert {re.search(r"(edge_\w+)_bucket", expr)[1] for expr in asked} == with_traces
