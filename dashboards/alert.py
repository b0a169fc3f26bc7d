"""One alert, and how it is written into a rule file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dashboards import thresholds
from dashboards.thresholds import Limit

SHORTEST_WINDOW = 5.0
"""Seconds that a scaled window keeps: a rate needs two scrapes."""
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))


@dataclass(frozen=True)
class Alert:
    """What to look for, when it is worth telling, and what to tell."""

    name: str
    severity: str
    limit: Limit
    expr: str
    when: str
    """The condition in words with its numbers, as the runbook shows it."""
    summary: str
    description: str
    """With the value and its unit."""
    dashboard: str
    """Path and variables of the dashboard to look at."""

    def rule(self, scale: float) -> dict[str, Any]:
        """Return it as Prometheus' rule files have it, to fire ``scale`` times as late."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": duration(self.limit.lasts * scale),
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{thresholds.RUNBOOKS}#{self.name.lower()}",
                "dashboard_url": f"{thresholds.GRAFANA}{self.dashboard}",
            },
        }

    @property
    def heading(self) -> str:
        """Return the line under the runbook's title: severity, patience, condition."""
        return f"`{self.severity}`, after {duration(self.limit.lasts)}: {self.when}."


def duration(seconds: float) -> str:
    """Return it as Prometheus writes durations, such as 1m30s, to the millisecond."""
    left, text = round(seconds * 1000), ""
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def window(limit: Limit, scale: float) -> str:
    """Return the window of a limit as a duration, scaled."""
    return duration(max(limit.window * scale, min(limit.window, SHORTEST_WINDOW)))
