"""The generated dashboards as tests read them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dashboards.build import OUT

Json = dict[str, Any]
BOARDS: dict[str, Json] = {file.stem: json.loads(file.read_text()) for file in sorted(OUT.glob("*.json"))}
VALUES = {"__rate_interval": "617s", "__range": "3h"}
"""What Grafana's own variables are filled with, the first with what nobody would write; any other becomes ``x``."""
VARIABLE = re.compile(r"\$\{?([a-z_]\w*)")


@dataclass(frozen=True)
class Panel:
    """One panel that is not a row."""

    board: str
    json: Json

    def __str__(self) -> str:
        return f"{self.board}: {self.json['title']}"

    @property
    def targets(self) -> list[Json]:
        """Return its queries."""
        found: list[Json] = self.json["targets"]
        return found

    @property
    def overrides(self) -> list[Json]:
        """Return what is said of single fields; logs have no such thing."""
        found: list[Json] = self.json.get("fieldConfig", {}).get("overrides", [])
        return found

    def promql(self) -> list[str]:
        """Return its PromQL with all variables filled in."""
        return [filled(said["expr"]) for said in self.targets if said["datasource"]["type"] == "prometheus"]


PANELS = [Panel(name, panel) for name, board in BOARDS.items() for panel in board["panels"] if panel["type"] != "row"]


def choices(board: Json, kind: str) -> list[Json]:
    """Return the variables of a dashboard that are of a type, such as query or datasource."""
    return [variable for variable in board["templating"]["list"] if variable["type"] == kind]


def filled(expr: str) -> str:
    """Return the query with a value for each variable."""
    return VARIABLE.sub(lambda found: VALUES.get(found[1], "x"), expr)


def texts(json_value: object) -> Iterator[str]:
    """Yield every text in it, however deep."""
    if isinstance(json_value, str):
        yield json_value
    elif isinstance(json_value, list | dict):
        for part in json_value.values() if isinstance(json_value, dict) else json_value:
            yield from texts(part)
