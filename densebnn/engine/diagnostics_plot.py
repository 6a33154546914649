"""diagnostics.png: what the binary layers did in the course of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from densebnn.atomic import atomic_path
from densebnn.binary import DIAGNOSTICS

__all__ = ["write_diagnostics"]


def write_diagnostics(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Plot the diagnostics in the records of a log: a panel for each figure, a line for each layer, coloured by depth.

    Nothing is written if the log has none, as of a network without binary layers.
    """
    reports = {record["step"]: record["diagnostics"] for record in records if record.get("diagnostics")}
    layers = list(dict.fromkeys(name for report in reports.values() for name in report))
    if not layers:
        return
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    colours = matplotlib.colormaps["viridis"].resampled(256)
    depth = Normalize(1, max(len(layers), 2))
    figure = Figure(figsize=(10, 6.5), layout="constrained", dpi=100)
    axes = figure.subplots(2, 2, sharex=True)
    for axis, (name, meaning) in zip(axes.flat, DIAGNOSTICS.items(), strict=True):
        values: list[float] = []
        for number, layer in enumerate(layers, 1):
            points = [(step, report[layer][name]) for step, report in reports.items() if name in report.get(layer, ())]
            values.extend(value for _, value in points)
            marker = "o" if len(points) < 12 else None
            axis.plot(
                *zip(*points, strict=True), color=colours(depth(number)), linewidth=1, marker=marker, markersize=3
            )
        axis.set_title(f"{name}: {meaning}", fontsize=8)
        lowest = min(values, default=0.0)
        axis.set_ylim(bottom=max(math.floor(10 * lowest - 0.5), 0) / 10)
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("step", fontsize=8)
    bar = figure.colorbar(ScalarMappable(depth, colours), ax=axes, aspect=40)
    bar.set_label(f"binary layer, from 1 (nearest to the image) to {len(layers)}", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    with atomic_path(path) as temporary:
        figure.set_canvas(FigureCanvasAgg(figure))
        figure.savefig(temporary, format="png")
