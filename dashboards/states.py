"""The worker-state model as it is shown: a name and a colour for each of names.STATE_CODES."""

from __future__ import annotations

from dashboards.sdk import models
from edge_otel.telemetry import names

COLOURS = {
    "idle": "#73bf69",
    "running": "#37872d",
    "starting": "#96d98d",
    "maintenance exit": "#fff899",
    "maintenance request": "#fade2a",
    "maintenance pending": "#f2cc0c",
    "maintenance mode": "#e0b400",
    "shutdown request": "#8ab8ff",
    "terminating": "#3274d9",
    "offline": "#8e8e8e",
    "offline maintenance": "#6e6440",
    "unknown": "#e02f44",
}
"""Green takes jobs, yellow is in maintenance, blue leaves, grey is gone in order, red was not asked to go."""


def mappings() -> models.ValueMap:
    """Return the text and colour of each code."""
    shown = sorted(names.STATE_CODES.items(), key=lambda item: item[1])
    return models.ValueMap(
        {
            str(code): models.ValueMappingResult(text=state, color=COLOURS[state], index=index)
            for index, (state, code) in enumerate(shown)
        }
    )


def fixed(state: str) -> list[models.DynamicConfigValue]:
    """Return the properties that give a series the colour of a state."""
    return [models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": COLOURS[state]})]
