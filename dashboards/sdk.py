"""What is used of Grafana's Foundation SDK, in its classic model: every Grafana imports and provisions that one.

The SDK warns of the classic model when it is imported, in favour of one that only the newest Grafana reads.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import (
        common,
        dashboard,
        logs,
        loki,
        prometheus,
        stat,
        statetimeline,
        table,
        tempo,
        timeseries,
    )
    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import common as common_models
    from grafana_foundation_sdk.models import dashboard as models
    from grafana_foundation_sdk.models import prometheus as prometheus_models
    from grafana_foundation_sdk.models import tempo as tempo_models
    from grafana_foundation_sdk.models import units

__all__ = [
    "Builder",
    "JSONEncoder",
    "common",
    "common_models",
    "dashboard",
    "logs",
    "loki",
    "models",
    "prometheus",
    "prometheus_models",
    "stat",
    "statetimeline",
    "table",
    "tempo",
    "tempo_models",
    "timeseries",
    "units",
]
