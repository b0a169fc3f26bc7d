"""Draws what was measured: how many times better each figure is, and how the fleet's costs grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

MET, MISSED, NO_GOAL, LINE = "#2f7d4f", "#b3402a", "#6c7a89", "#1f4e79"


def draw(found: Mapping[str, Mapping[str, Any]], steps: Sequence[Mapping[str, Any]], target: Path) -> None:
    """Write the picture; a half of it whose part was not measured stays away."""
    compared = {key: row for key, row in found.items() if row["ratio"]}
    grown = [step for step in steps if "busy" in step]
    halves = [half for half, there in (("ratios", compared), ("growth", grown)) if there]
    if not halves:
        return
    figure = plt.figure(figsize=(11, 5 * len(halves)), layout="constrained")
    parts = dict(zip(halves, figure.subfigures(len(halves), 1, squeeze=False)[:, 0], strict=True))
    if compared:
        _ratios(parts["ratios"].subplots(), list(compared.values()))
    if grown:
        _growth(parts["growth"].subplots(1, 3), grown)
    figure.savefig(target, dpi=110)
    plt.close(figure)


def _ratios(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    colours = [{True: MET, False: MISSED, None: NO_GOAL}[row["met"]] for row in rows]
    # From 1, which is as good as edge3: a bar's length is then its ratio also on this scale.
    lengths = [row["ratio"] - 1 for row in rows]
    bars = axes.barh([row["text"] for row in rows], lengths, left=1, color=colours)
    axes.bar_label(bars, [f" {row['ratio']:.1f}x" + (f" (goal {row['goal']})" if row["goal"] else "") for row in rows])
    most = max(row["ratio"] for row in rows)
    axes.set(xscale="log", xlabel="times better than edge3 5.1.0", xlim=(None, max(10, most) ** 1.3))
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()


def _growth(axes: Sequence[Axes], steps: Sequence[Mapping[str, Any]]) -> None:
    workers = [step["workers"] for step in steps]

    def plot(place: Axes, title: str, lines: Mapping[str, Sequence[float]]) -> None:
        for (label, values), style in zip(lines.items(), ("o-", "s--", "^:"), strict=False):
            place.plot(workers, values, style, color=LINE, label=label, alpha=0.8)
        place.set(title=title, xlabel="connected workers", ylim=(0, None))
        place.grid(alpha=0.3)
        place.legend()

    busy, quiet = [step["busy"] for step in steps], [step["quiet"] for step in steps]
    plot(
        axes[0],
        "queued to confirmed, s",
        {"median": [half["confirmed_p50_s"] for half in busy], "p99": [half["confirmed_p99_s"] for half in busy]},
    )
    plot(
        axes[1],
        "statements",
        {
            "per job": [half["statements_per_job"] for half in busy],
            "per heartbeat": [half["statements_per_heartbeat"] for half in quiet],
        },
    )
    plot(
        axes[2],
        "API process",
        {
            "cores, 20 jobs/s": [half["cpu_share"] for half in busy],
            "cores, heartbeats alone": [half["cpu_share"] for half in quiet],
            "RSS, GB": [step["api_rss_mb"] / 1000 for step in steps],
        },
    )
