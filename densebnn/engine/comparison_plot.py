"""One plot over runs: their figures as bars, column by column, and their curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from densebnn.atomic import atomic_path
from densebnn.engine.charts import thinned
from densebnn.engine.comparison import Column, Comparison

__all__ = ["write_comparison_plot"]

_WIDTH = 5.6
_MOST_LETTERS = 84


def write_comparison_plot(path: Path, comparison: Comparison) -> None:
    """Write the PNG: a panel of bars for each column of figures, then one for each kind of curve.

    Bars begin at 0; the best one, where it is known which that is, is marked by a dot. A run has one colour everywhere.

    Raises:
        UserError: the file cannot be written.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [_literal(name) for name in comparison.names]
    palette = matplotlib.colormaps["tab10" if len(names) <= 10 else "turbo"]
    places = range(len(names)) if len(names) <= 10 else np.linspace(0.05, 0.95, len(names))
    colours = [palette(place) for place in places]
    panels: list[Any] = [column for column in comparison.columns if any(row.get(column) for row in comparison.rows)]
    panels += list(comparison.curves)
    rows = max(-(-len(panels) // 2), 1)
    height = max(0.32 * len(names) + 1.1, 2.6)
    figure = Figure(figsize=(2 * _WIDTH, height * rows), layout="constrained", dpi=110)
    axes = figure.subplots(rows, 2, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        if isinstance(panel, Column):
            _bars(axis, comparison, panel, names, colours)
        else:
            _lines(axis, comparison, panel, names, colours)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure)
        figure.savefig(temporary, format="png")


def _bars(axis: Any, comparison: Comparison, column: Column, names: list[str], colours: list[Any]) -> None:
    values = [row.get(column) for row in comparison.rows]
    there = [number for number, value in enumerate(values) if value is not None]
    axis.barh(there, [values[number] for number in there], color=[colours[number] for number in there], height=0.7)
    for number in there:
        best = " ●" if comparison.is_best(number, column) else ""
        axis.annotate(
            f" {values[number]:.4g}{best}",
            (max(values[number] or 0, 0), number),
            va="center",
            fontsize=8,
            clip_on=False,
        )
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.margins(x=0.18)
    arrow = {True: ", higher is better", False: ", lower is better", None: ""}[comparison.best[column]]
    axis.set_title(_literal(f"{column.headline}{arrow}"), fontsize=10)
    axis.set_xlabel(_literal(column.place), fontsize=8)


def _lines(axis: Any, comparison: Comparison, title: str, names: list[str], colours: list[Any]) -> None:
    for name, shown, colour in zip(comparison.names, names, colours, strict=True):
        curve = comparison.curves[title].get(name)
        if curve:
            points = thinned(np.asarray(curve, dtype=np.float64), 150)
            marker = "o" if len(points) < 12 else None
            axis.plot(*points.T, color=colour, linewidth=1.2, marker=marker, markersize=3.5, label=shown)
    axis.legend(fontsize=7, frameon=False)
    axis.grid(axis="y", alpha=0.3)
    axis.set_title(_literal(title), fontsize=10)
    axis.set_xlabel("step", fontsize=8)


def _literal(text: str) -> str:
    short = text if len(text) <= _MOST_LETTERS else "…" + text[1 - _MOST_LETTERS :]
    return short.replace("$", r"\$")  # matplotlib would read formulas between dollars
