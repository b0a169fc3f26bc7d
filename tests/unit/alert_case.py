"""Made-up series and what must fire on them, for ``promtool test rules``: made from the names, as the rules are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboards import prometheus
from edge_otel.telemetry import names

Value = Callable[[float], float | None]
"""By the second; None: nothing was scraped."""
MINUTE, HOUR = 60, 3600


@dataclass(frozen=True)
class Series:
    """One series over time."""

    selector: str
    value: Value

    def written(self, step: int, until: int) -> dict[str, str]:
        """Return it as promtool reads it. What vanishes is marked as stale, as a scrape does that does not find it."""
        there, values = False, []
        for at in range(0, until + 1, step):
            value = self.value(at)
            values.append(f"{value:g}" if value is not None else "stale" if there else "_")
            there = value is not None
        return {"series": self.selector, "values": " ".join(values)}


@dataclass(frozen=True)
class Case:
    """What must fire of one alert, on some series, at some times."""

    alert: str
    name: str
    series: Sequence[Series]
    fires: Mapping[int, Sequence[Mapping[str, str]]]
    """By second: the labels of each that fires then; empty: none does."""
    step: int = 15

    def written(self, severity: str) -> dict[str, Any]:
        """Return it as a test of promtool's."""
        until = max(self.fires)
        always = {"alertname": self.alert, "alertstate": "firing", "severity": severity}

        def sample(labels: Mapping[str, str]) -> dict[str, Any]:
            said = ",".join(f'{key}="{value}"' for key, value in {**always, **labels}.items())
            return {"labels": f"ALERTS{{{said}}}", "value": 1}

        return {
            "name": f"{self.alert}: {self.name}",
            "interval": f"{self.step}s",
            "input_series": [one.written(self.step, until) for one in self.series],
            "promql_expr_test": [
                {
                    "expr": f'ALERTS{{alertname="{self.alert}",alertstate="firing"}}',
                    "eval_time": f"{at}s",
                    "exp_samples": [sample(labels) for labels in expected],
                }
                for at, expected in self.fires.items()
            ],
        }


def series(metric: names.Metric, value: float | Value, part: str = "", **labels: str) -> Series:
    """Return a series of this metric, with the labels that it has."""
    where = {key: f"={said}" for key, said in {"instance": "a", **labels}.items()}
    constant = value if callable(value) else lambda _: value
    return Series(prometheus.series(metric, part, **where), constant)


def worker(
    state: str | Callable[[float], str],
    heard: Value = lambda at: at,
    *,
    name: str = "w",
    interval: float = 30,
    instance: str = "a",
    scraped: Callable[[float], bool] = lambda _: True,
) -> list[Series]:
    """Return what an Edge API says of one worker. ``heard``: when, as of each second; ``scraped``: whether it is."""
    state_at = state if callable(state) else lambda _: state
    who = {"worker": name, "instance": instance}

    def while_scraped(value: Value) -> Value:
        return lambda at: value(at) if scraped(at) else None

    def is_in(one: str) -> Value:
        return while_scraped(lambda at: float(state_at(at) == one))

    return [
        *(series(names.WORKER_STATES, is_in(one), **who, state=one) for one in names.STATE_CODES),
        series(names.WORKER_STATE_CODE, while_scraped(lambda at: names.STATE_CODES[state_at(at)]), **who),
        series(names.WORKER_LAST_HEARTBEAT, while_scraped(heard), **who),
        series(names.WORKER_HEARTBEAT_INTERVAL, while_scraped(lambda _: interval), **who),
    ]


def until(last: float) -> Value:
    """Return a clock that stops: when a worker was heard that fell silent then."""
    return lambda at: min(at, last)
