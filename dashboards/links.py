"""The dashboards' own uids, and addresses of them that keep the time range and the data sources."""

from __future__ import annotations

from dashboards.sdk import dashboard, models

FLEET, JOBS, WORKER, TRANSPORT = "edge-fleet", "edge-jobs", "edge-worker", "edge-transport"
"""Uids; alerts and bookmarks name them, so they never change."""
TAG = "edge-otel"
"""On each of the four: their menus are made of it."""
SOURCES = ("prometheus_datasource", "loki_datasource", "tempo_datasource")
"""Names of the variables, as Grafana's dashboard-linter wants them."""

_KEPT = "&".join(("${__url_time_range}", *(f"${{{source}:queryparam}}" for source in SOURCES)))


def to(uid: str, **variables: str) -> str:
    """Return the address of a dashboard, with values for its variables; a uid may be an expression, too."""
    return "&".join((f"/d/{uid}?{_KEPT}", *(f"var-{name}={value}" for name, value in variables.items())))


def data_link(title: str, url: str) -> dashboard.DashboardLink:
    """Return a link on the series of a graph."""
    return dashboard.DashboardLink(title).url(url)


def cell_link(title: str, url: str) -> dict[str, str]:
    """Return a link on the cells of a column."""
    return {"title": title, "url": url}


TO_WORKER = to(WORKER, worker="${__data.fields.worker:percentencode}")
"""From a table with a column of that name."""
TO_QUEUE = to(JOBS, queue="${__data.fields.queue:percentencode}")
SERIES_TO_WORKER = to(WORKER, worker="${__field.labels.worker:percentencode}")
"""From a graph whose series have that label."""
SERIES_TO_QUEUE = to(JOBS, queue="${__field.labels.queue:percentencode}")


def menu() -> dashboard.DashboardLink:
    """Return the links to the other dashboards at the top of each: time range and variables are kept."""
    link = dashboard.DashboardLink("edge-otel").type(models.DashboardLinkType.DASHBOARDS).tags([TAG])
    # The SDK's default is to hide links in a menu.
    return link.include_vars(True).keep_time(True).placement("")
