"""The variables of the dashboards, and how queries use them."""

from __future__ import annotations

from dashboards import links, prometheus
from dashboards.sdk import common_models, dashboard, models
from edge_otel.telemetry import names

ALL = models.VariableOption(selected=True, text=["All"], value=["$__all"])
TEAM = {"team": "=~$team"}
QUEUE = {"queue": "=~$queue"}
WORKER = {"worker": "=~$workers"}
ONE = {"worker": "=$worker"}
"""Where there is one only: as that is no list, Grafana does not escape it for a regular expression."""
OTLP_WORKER = {prometheus.label(names.WORKER_NAME): "=$worker"}
"""The same of a metric that the worker sent by OTLP."""


def source(variable: str) -> common_models.DataSourceRef:
    """Return the reference to the data source that a variable of links.SOURCES holds."""
    return common_models.DataSourceRef(type_val=variable.partition("_")[0], uid=f"${{{variable}}}")


PROMETHEUS, LOKI, TEMPO = map(source, links.SOURCES)


def sources() -> list[dashboard.DatasourceVariable]:
    """Return the choice of data sources. Each dashboard has all three, so that links hand the choice on."""
    kinds = [variable.partition("_")[0] for variable in links.SOURCES]
    return [
        dashboard.DatasourceVariable(variable).label(f"{kind.title()} data source").type(kind)
        for variable, kind in zip(links.SOURCES, kinds, strict=True)
    ]


def team() -> dashboard.QueryVariable:
    """Return the choice of teams. All includes what has no team, for an empty label is none."""
    variable = _choice("team", "Team", "Team that workers and queues belong to.", names.WORKER_COUNT, "team")
    return variable.multi(True).include_all(True).all_value(".*").current(ALL)


def queue() -> dashboard.QueryVariable:
    """Return the choice of the teams' queues."""
    variable = _choice("queue", "Queue", "Queue of jobs.", names.JOBS, "queue", **TEAM)
    return variable.multi(True).include_all(True).current(ALL)


def workers() -> dashboard.QueryVariable:
    """Return the choice of the teams' workers. All is the list of them: most metrics of a worker have no team."""
    # Not named as the choice of one: the menu hands on the values of variables of the same name.
    variable = _choice(
        "workers", "Workers", "Workers, also those that are gone.", names.WORKER_STATE_CODE, "worker", **TEAM
    )
    return variable.multi(True).include_all(True).current(ALL)


def worker() -> dashboard.QueryVariable:
    """Return the choice of one worker."""
    return _choice("worker", "Worker", "Worker, also one that is gone.", names.WORKER_STATE_CODE, "worker", **TEAM)


def _choice(
    name: str, label: str, description: str, metric: names.Metric, of: str, **where: str
) -> dashboard.QueryVariable:
    """``of``: the label whose values there are to choose from."""
    query = f"label_values({prometheus.series(metric, **where)}, {of})"
    variable = dashboard.QueryVariable(name).label(label).description(description).query(query).datasource(PROMETHEUS)
    variable = variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
    return variable.sort(models.VariableSort.NATURAL_ASC)
