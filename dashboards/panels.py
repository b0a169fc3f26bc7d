"""Panels as all the dashboards have them: a title, a description, a unit, queries, and a size on the grid of 24."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from dashboards.sdk import (
    common,
    common_models,
    dashboard,
    logs,
    loki,
    models,
    prometheus,
    prometheus_models,
    stat,
    statetimeline,
    table,
    tempo,
    tempo_models,
    timeseries,
)
from dashboards.states import mappings
from dashboards.variables import LOKI, PROMETHEUS, TEMPO

Panel = TypeVar("Panel", timeseries.Panel, stat.Panel, statetimeline.Panel, table.Panel, logs.Panel)
Query = prometheus.Dataquery
MANY = "short"
"""Unit of what is only counted."""


def query(expr: str, legend: str = "", *, exemplar: bool = False) -> Query:
    """Return a query over time. ``exemplar``: of a histogram whose exemplars name traces."""
    made = prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").range().datasource(PROMETHEUS)
    return made.exemplar(True) if exemplar else made


def now(expr: str, legend: str = "") -> Query:
    """Return a query for the latest values."""
    return prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").instant().datasource(PROMETHEUS)


def rows(expr: str) -> Query:
    """Return a query for the latest values as rows of a table, a column for each label."""
    return now(expr).format(prometheus_models.PromQueryFormat.TABLE)


def graph(
    title: str, about: str, unit: str, *queries: Query, width: int = 8, stacked: bool = False
) -> timeseries.Panel:
    """Return a graph over time, with the last value and the maximum of each series in its legend."""
    legend = common.VizLegendOptions().show_legend(True).placement(common_models.LegendPlacement.BOTTOM)
    legend = legend.display_mode(common_models.LegendDisplayMode.TABLE).calcs(["lastNotNull", "max"])
    many = common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI)
    many = many.sort(common_models.SortOrder.DESCENDING)
    panel = _panel(timeseries.Panel, title, about, queries, width, 8).unit(unit).legend(legend).tooltip(many)
    panel = panel.fill_opacity(40 if stacked else 8).line_width(1).show_points(common_models.VisibilityMode.AUTO)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    return panel


def number(title: str, about: str, unit: str, *queries: Query, width: int = 4, height: int = 4) -> stat.Panel:
    """Return the latest values, large."""
    panel = _panel(stat.Panel, title, about, queries, width, height).unit(unit)
    panel = panel.graph_mode(common_models.BigValueGraphMode.NONE).color_mode(common_models.BigValueColorMode.VALUE)
    return panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))


def timeline(title: str, about: str, *queries: Query, height: int = 9) -> statetimeline.Panel:
    """Return the states of workers over time, each with its name and colour; 25 workers to a page."""
    panel = _panel(statetimeline.Panel, title, about, queries, 24, height).mappings([mappings()])
    panel = panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
    legend = common.VizLegendOptions().show_legend(True).placement(common_models.LegendPlacement.BOTTOM)
    panel = panel.legend(legend.display_mode(common_models.LegendDisplayMode.LIST))
    panel = panel.show_value(common_models.VisibilityMode.AUTO).merge_values(True).row_height(0.85).per_page(25)
    return panel.unit("none").fill_opacity(80).line_width(0)


def grid(title: str, about: str, *queries: Query, width: int = 24, height: int = 9) -> table.Panel:
    """Return a table of rows that are one where their labels are, and no column for time."""
    panel = _panel(table.Panel, title, about, queries, width, height).unit(MANY).filterable(True)
    panel = panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    return panel.override_by_name("Time", [models.DynamicConfigValue("custom.hidden", True)])


def column(panel: table.Panel, name: str, title: str = "", **properties: Any) -> table.Panel:
    """Set how a column of a table is shown: ``unit``, ``links``, ``width``, ``mappings``, ``hidden``, ``decimals``.

    ``name`` is that of a label, or ``Value #A`` for the first query's.
    """
    said = {"displayName": title, **properties} if title else properties
    custom = {"width", "hidden", "cellOptions"}
    values = [models.DynamicConfigValue(f"custom.{key}" if key in custom else key, said[key]) for key in said]
    return panel.override_by_name(name, values)


def log_lines(title: str, about: str, logql: str, *, width: int = 24) -> logs.Panel:
    """Return lines of logs, the newest first; one leads to its trace, where the data source says how."""
    lines = loki.Dataquery().expr(logql).query_type("range").max_lines(500).datasource(LOKI).ref_id("A")
    panel = _placed(logs.Panel(), title, about, width, 12).datasource(LOKI).with_target(lines)
    panel = panel.show_time(True).wrap_log_message(True).enable_log_details(True)
    return panel.sort_order(common_models.LogsSortOrder.DESCENDING)


def traces(title: str, about: str, traceql: str, *, width: int = 24) -> table.Panel:
    """Return a table of the latest traces that have such a span; each leads to the trace."""
    found = tempo.Dataquery().query(traceql).query_type("traceql").limit(20).datasource(TEMPO).ref_id("A")
    found = found.table_type(tempo_models.SearchTableType.TRACES)
    return _placed(table.Panel(), title, about, width, 8).datasource(TEMPO).with_target(found).unit("none")


def limits(*steps: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    """Return colours by value: from each number on, the first from None."""
    colours = [models.Threshold(value=value, color=color) for value, color in steps]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(colours)


def line() -> common.GraphThresholdsStyleConfig:
    """Return that limits are drawn as lines."""
    return common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.LINE)


def _panel(
    kind: Callable[[], Panel], title: str, about: str, queries: tuple[Query, ...], width: int, height: int
) -> Panel:
    panel = _placed(kind(), title, about, width, height).datasource(PROMETHEUS)
    for letter, target in zip("ABCDEFGHIJKLM", queries, strict=False):
        panel = panel.with_target(target.ref_id(letter))
    return panel


def _placed(panel: Panel, title: str, about: str, width: int, height: int) -> Panel:
    return panel.title(title).description(about).span(width).height(height)
