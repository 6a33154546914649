"""Charts of a report, as SVG in a data URI: the same figures give the same bytes, and text is drawn as shapes."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Curve", "confusion_chart", "curve_chart", "curves_of", "distance_chart", "images_chart", "thinned"]

Curve = Sequence[tuple[float, float]]
_BLUE, _GREY = "#2b6cb0", "#a0aec0"
_POINTS = 400


def curves_of(records: Sequence[Mapping[str, Any]], headlines: Mapping[str, str]) -> dict[str, dict[str, Curve]]:
    """Return the curves of a log, chart by chart: the losses, the learning rate, and the held-out headline figures.

    Args:
        records: of `metrics.jsonl`.
        headlines: the key of the headline figure of each task.
    """
    charts: dict[str, dict[str, list[tuple[float, float]]]] = {"loss": {}, "learning rate": {}}
    for record in records:
        for key, value in record.items():
            if key != "step" and isinstance(value, (int, float)):
                chart = charts["learning rate" if key == "lr" else "loss"]
                chart.setdefault(key, []).append((record["step"], value))
        for task, key in headlines.items():
            found = record.get("eval", {})
            value = (found.get(task) or found).get(key) if isinstance(found, Mapping) else None
            if isinstance(value, (int, float)):
                charts.setdefault(f"{task}, held-out {key}", {}).setdefault(key, []).append((record["step"], value))
    for lines in charts.values():
        for name in list(lines)[1:]:
            if lines[name] == next(iter(lines.values())):  # the only part of a loss
                del lines[name]
    return {title: dict(lines) for title, lines in charts.items() if lines}


def curve_chart(title: str, curves: Mapping[str, Curve]) -> str:
    """Return a chart of curves over steps; long ones are averaged to some hundred points."""
    figure = _figure(5.2, 3.0)
    axis = figure.add_subplot()
    for name, curve in curves.items():
        points = thinned(np.asarray(curve, dtype=np.float64))
        axis.plot(*points.T, linewidth=1.3, marker="o" if len(points) < 12 else None, markersize=3.5, label=name)
    if len(curves) > 1:
        axis.legend(fontsize=9, frameon=False)
    axis.set_title(title, fontsize=11)
    axis.set_xlabel("step")
    return _svg(figure)


def distance_chart(bins: Sequence[Mapping[str, Any]]) -> str:
    """Return RMSE and relative error by true distance, and below how many of the pixels lie there."""
    figure = _figure(5.2, 3.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    names = [_span(part) for part in bins]
    upper.bar(names, [part["rmse"] for part in bins], color=_BLUE)
    upper.set_ylabel("RMSE in metres", color=_BLUE)
    relative = upper.twinx()
    relative.plot(names, [part["abs_rel"] for part in bins], color="#c05621", marker="o", markersize=4)
    relative.set_ylim(bottom=0)
    relative.set_ylabel("AbsRel", color="#c05621")
    total = sum(part["pixels"] for part in bins)
    lower.bar(names, [100 * part["pixels"] / total for part in bins], color=_GREY)
    lower.set_ylabel("% of pixels")
    lower.set_xlabel("true distance in metres")
    return _svg(figure)


def images_chart(images: Sequence[Sequence[Any]], figure_name: str) -> str:
    """Return the figure of each image, from the lowest to the highest."""
    values = sorted(value for _, value in images if value is not None)
    figure = _figure(5.2, 3.0)
    axis = figure.add_subplot()
    places = np.linspace(0, 100, len(values)) if len(values) > 1 else [50]
    axis.plot(places, values, color=_BLUE, marker="o" if len(values) < 40 else None, markersize=3.5)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("% of the images, sorted")
    axis.set_title(f"{figure_name} of each image", fontsize=11)
    return _svg(figure)


def confusion_chart(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    """Return the confusion matrix, each row divided by its sum; rows of classes that are not there stay empty."""
    counts = np.asarray(matrix, dtype=np.float64)
    sums = counts.sum(axis=1, keepdims=True)
    shares = np.ma.masked_where(np.broadcast_to(sums == 0, counts.shape), counts / np.maximum(sums, 1))
    side = max(5.0, 2.0 + 0.24 * len(classes))
    figure = _figure(side + 0.6, side)
    axis = figure.add_subplot()
    drawn = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    names = [name if len(name) <= 20 else name[:19] + "…" for name in classes]
    axis.set_xticks(range(len(names)), [_literal(name) for name in names], rotation=90, fontsize=8)
    axis.set_yticks(range(len(names)), [_literal(name) for name in names], fontsize=8)
    if len(classes) <= 16:
        for row, column in zip(*np.nonzero(shares.filled(0) >= 0.005), strict=True):
            share = shares[row, column]
            colour = "white" if share > 0.5 else "black"
            axis.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    figure.colorbar(drawn, ax=axis, fraction=0.04, label="share of the true class")
    return _svg(figure)


def _literal(text: str) -> str:
    return text.replace("$", r"\$")  # matplotlib would read formulas between dollars


def _span(part: Mapping[str, Any]) -> str:
    return f"{part['from']:g}+" if part["to"] is None else f"{part['from']:g}–{part['to']:g}"


def thinned(points: np.ndarray, most: int = _POINTS) -> np.ndarray:
    """Return (step, value) rows, at most so many: means of neighbours where there are more."""
    size = math.ceil(len(points) / most)
    edges = np.arange(0, len(points), size)
    return np.add.reduceat(points, edges) / np.diff(np.append(edges, len(points)))[:, None]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Figure) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    for axis in figure.axes:
        if axis.get_label() != "<colorbar>":
            second = axis.yaxis.get_label_position() == "right"  # its grid would not meet the first one's
            axis.spines[["top", "left" if second else "right"]].set_visible(False)
            axis.set_axisbelow(True)
            if not (second or axis.images):
                axis.grid(axis="y", alpha=0.3)
    FigureCanvasSVG(figure)
    buffer = io.BytesIO()
    # Without a salt of its own, names inside the file are random; without the exclusion, it holds the date.
    with matplotlib.rc_context({"svg.hashsalt": "densebnn", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
