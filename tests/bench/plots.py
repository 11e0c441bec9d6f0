# SPDX-License-Identifier: Apache-2.0
"""Figures as SVG, by matplotlib, the same file for the same numbers. Must not know what they mean, nor measure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl

from bench.figures import Curves, Spreads

mpl.use("svg")
from matplotlib.figure import Figure

# By Okabe and Ito, and two more: told apart by everybody.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999", "#8B4513")
_MARKERS = "osD^vPX*d"
_STYLE: Any = {
    "svg.hashsalt": "cgnetd",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_INCHES = (8.0, 4.2)


def draw(figure: Curves | Spreads, path: Path) -> None:
    if isinstance(figure, Curves):
        _draw_curves(figure, path)
    else:
        _draw_spreads(figure, path)


def _draw_curves(curves: Curves, path: Path) -> None:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_INCHES, layout="constrained")
        axes = figure.add_subplot()
        looks = _looks(name.partition(",")[0] for name in curves.points)
        for name, points in curves.points.items():
            color, marker = looks[name.partition(",")[0]]
            line = "--" if "," in name else "-"
            axes.plot(*zip(*points, strict=True), line, color=color, marker=marker, markersize=4, label=name)
        axes.set(xscale="log", yscale="log", xlabel=curves.x, ylabel=curves.y, title=curves.title)
        axes.yaxis.set_major_formatter(_plain)
        axes.xaxis.set_major_formatter(_plain)
        figure.legend(loc="outside right upper", frameon=False)
        _save(figure, path)


def _draw_spreads(spreads: Spreads, path: Path) -> None:
    """The middle as a point, a line from low to high; groups from top to bottom."""
    with mpl.rc_context(_STYLE):
        names = list(dict.fromkeys(name for group in spreads.ratios.values() for name in group))
        looks = _looks(names)
        height = 0.9 + 0.17 * len(spreads.ratios) * (len(names) + 1)
        figure = Figure(figsize=(_INCHES[0], height), layout="constrained")
        axes = figure.add_subplot()
        ticks = []
        for at, group in enumerate(spreads.ratios.values()):
            ticks.append(-(at + (len(names) - 1) / 2 / (len(names) + 1)))
            for place, (name, (middle, low, high)) in enumerate(group.items()):
                color, marker = looks[name]
                y = -(at + place / (len(names) + 1))
                axes.plot([low, high], [y, y], color=color, linewidth=1.5)
                axes.plot([middle], [y], marker, color=color, markersize=5, label=None if at else name)
        axes.axvline(1.0, color="#555555", linewidth=0.8)
        axes.set(yticks=ticks, yticklabels=list(spreads.ratios), xlabel=spreads.x, title=spreads.title)
        figure.legend(loc="outside right upper", frameon=False)
        _save(figure, path)


def _looks(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Color and marker by name."""
    distinct = list(dict.fromkeys(names))
    return {name: (_COLORS[at % len(_COLORS)], _MARKERS[at % len(_MARKERS)]) for at, name in enumerate(distinct)}


def _plain(value: float, _: object) -> str:
    """1,000 and not 10 to the third; "1M"."""
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value:,.0f}" if value >= 1 else f"{value:.{max(0, -math.floor(math.log10(value)))}f}"


def _save(figure: Figure, path: Path) -> None:
    """Without the date, so that the same numbers are the same file."""
    figure.savefig(path, format="svg", metadata={"Date": None})
    text = path.read_text(encoding="utf-8")
    path.write_text("".join(f"{line.rstrip()}\n" for line in text.splitlines()), encoding="utf-8")
