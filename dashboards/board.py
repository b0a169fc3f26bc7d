"""A whole dashboard: its rows of panels, laid out and numbered, and what all of them have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dashboards import links, variables
from dashboards.sdk import Builder, JSONEncoder, dashboard, models

Rows = Sequence[tuple[str, Sequence[Builder[models.Panel]]]]
"""Titles with panels; the panels of a row are laid out from the left, at most 24 wide in a line."""


def board(
    uid: str, title: str, about: str, choices: Sequence[dashboard.QueryVariable], rows: Rows, since: str = "now-3h"
) -> str:
    """Return the JSON of a dashboard. ``choices``: its variables beside the data sources."""
    made = dashboard.Dashboard(title).uid(uid).description(about).tags([links.TAG]).timezone("utc").readonly()
    made = made.time(since, "now").refresh("30s").tooltip(models.DashboardCursorSync.CROSSHAIR)
    made = made.variables([*variables.sources(), *choices]).link(links.menu())
    number = 0
    for heading, panels in rows:
        number += 1
        made = made.with_row(dashboard.Row(heading).id(number))
        for panel in panels:
            number += 1
            made = made.with_panel(numbered(panel, number))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def numbered(panel: Any, number: int) -> Builder[models.Panel]:
    """Return the panel with its number, by which links name it."""
    with_id: Builder[models.Panel] = panel.id(number)
    return with_id
