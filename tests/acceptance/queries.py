"""The queries of the dashboards and rules, as they are committed: pure but for reading the files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dashboards import prometheus
from edge_otel.telemetry import names

OUT = Path(prometheus.__file__).parent / "out"
VARIABLE = re.compile(r"\$\{?([a-z_]\w*)(?::\w+)?\}?")
LABEL_VALUES = re.compile(r"label_values\((.+), *(\w+)\)")
FILLED = {"__rate_interval": "1m", "__range": "1m", "__interval": "5s"}
"""Grafana's own variables."""
METRIC = re.compile(
    r"(?<![\w:])({})(_bucket|_sum|_count)?(?![\w:])({{[^}}]*}})?".format(
        "|".join(re.escape(prometheus.name(metric)) for metric in names.METRICS)
    )
)


@dataclass(frozen=True)
class Query:
    """One query, and where it stands."""

    file: str
    panel: str
    expr: str


def filled(expr: str) -> str:
    """Return the expression with every variable filled in with all that there is."""
    every = re.sub(r'(?<==)"\$worker"', '~".*"', expr)
    return VARIABLE.sub(lambda match: FILLED.get(match[1], ".*"), every)


def of_dashboards() -> Iterator[Query]:
    """Yield every query to Prometheus: of panels, of variables and of annotations."""
    for path in sorted(OUT.glob("*.json")):
        board = json.loads(path.read_text())
        for panel in _panels(board["panels"]):
            for target in panel.get("targets", ()):
                if _asks_prometheus(target) or ("datasource" not in target and _asks_prometheus(panel)):
                    yield Query(path.name, panel["title"], filled(target["expr"]))
        for variable in board["templating"]["list"]:
            values = LABEL_VALUES.fullmatch(_text(variable.get("query", "")))
            if values:
                yield Query(path.name, f"${variable['name']}", f"group by ({values[2]}) ({filled(values[1])})")
        for annotation in board.get("annotations", {}).get("list", ()):
            if _asks_prometheus(annotation):
                yield Query(path.name, annotation["name"], filled(annotation["expr"]))


def of_rules() -> Iterator[Query]:
    """Yield what is recorded, and each metric that an alert looks at: an alert itself has data only in a fault."""
    for path in sorted(OUT.glob("*.rules.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                if "record" in rule:
                    yield Query(path.name, rule["record"], rule["expr"])
                    continue
                for selector in dict.fromkeys(match[0] for match in METRIC.finditer(rule["expr"])):
                    yield Query(path.name, rule["alert"], selector)


def _panels(panels: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in panels:
        yield panel
        yield from _panels(panel.get("panels", []))


def _asks_prometheus(asking: dict[str, Any]) -> bool:
    return bool(asking.get("datasource", {}).get("type") == "prometheus")


def _text(query: Any) -> str:
    return str(query.get("query", "")) if isinstance(query, dict) else str(query)
