"""The rule file for Prometheus: recording rules and alerts, written by ``python -m dashboards.build``."""

from __future__ import annotations

from typing import Any

import yaml

from dashboards import api_alerts, queue_alerts, recorded, worker_alerts
from dashboards.alert import Alert

FILE = "edge-otel.rules.yaml"
_HEADER = "# Written by `python -m dashboards.build`: change dashboards/thresholds.py, not this file.\n"


def groups(scale: float = 1.0) -> dict[str, list[Alert]]:
    """Return the alerts by rule group. ``scale``: what durations are multiplied with, below 1 to see them fire soon."""
    return {
        "edge-workers": worker_alerts.alerts(scale),
        "edge-queues": queue_alerts.alerts(scale),
        "edge-api": api_alerts.alerts(scale),
    }


def alerts(scale: float = 1.0) -> list[Alert]:
    """Return all alerts."""
    return [alert for group in groups(scale).values() for alert in group]


def rules(scale: float = 1.0) -> dict[str, Any]:
    """Return the rule file as data. Every ``for`` and every window is multiplied with ``scale``; thresholds are not."""
    written = {name: [alert.rule(scale) for alert in group] for name, group in groups(scale).items()}
    all_groups = {"edge-recorded": recorded.rules(scale), **written}
    return {"groups": [{"name": name, "rules": group} for name, group in all_groups.items()]}


def text(scale: float = 1.0) -> str:
    """Return the rule file."""
    return _HEADER + yaml.dump(rules(scale), Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes what has several lines as it is."""


def _lines(dumper: yaml.SafeDumper, said: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", said, style="|" if "\n" in said else None)


_Dumper.add_representer(str, _lines)
