"""Pictures of samples with all their truths, to look at before anything is trained on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from densebnn.atomic import atomic_path
from densebnn.data.dense.arrays import Array

__all__ = ["write_samples"]


def write_samples(
    path: Path, samples: Sequence[Mapping[str, Any]], *, classes: int = 40, ignore_index: int = 255
) -> None:
    """Write a PNG of one row for each sample and one picture for each field.

    Depth is coloured from the nearest (red) to the farthest of its sample, labels by class; normals show x, y, z as
    red, green, blue, edges are white. Pixels without truth are grey.

    Args:
        path: The PNG file.
        samples: Of a dense data set, all with the same fields.
        classes: How many classes the labels have.
        ignore_index: Label of pixels without a class.

    Raises:
        UserError: The file cannot be written.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fields = [name for name in samples[0] if name != "index"]
    height, width = samples[0][fields[0]].shape[:2]
    figure = Figure(figsize=(3 * len(fields), len(samples) * (3 * height / width + 0.3)), layout="constrained", dpi=100)
    for row, sample in zip(figure.subplots(len(samples), len(fields), squeeze=False), samples, strict=True):
        for axis, name in zip(row, fields, strict=True):
            title, data, colours, high = _picture(name, sample[name], classes, ignore_index)
            shown = matplotlib.colormaps[colours].with_extremes(bad="0.5")
            low = None if high is None else 0
            axis.imshow(data, cmap=shown, vmin=low, vmax=high, interpolation="nearest")
            axis.set_title(title if name != "image" else f"sample {sample['index']}", fontsize=9)
            axis.set_axis_off()
    with atomic_path(path) as temporary:
        figure.set_canvas(FigureCanvasAgg(figure))
        figure.savefig(temporary, format="png")


def _picture(name: str, values: Array, classes: int, ignore_index: int) -> tuple[str, Array, str, float | None]:
    """Return title, data, colormap and the value of its last colour (None: the largest)."""
    if name in ("depth", "raw_depth"):
        valid = np.ma.masked_where(values <= 0, values)
        span = f", {valid.min():.1f} (red) to {valid.max():.1f} m" if valid.count() else ", none"
        return name + span, valid, "turbo_r", None
    if name == "label":
        return "label", np.ma.masked_where(values == ignore_index, values), "tab20", max(classes - 1, 1)
    if name == "normals":
        return "normals", (values + 1) / 2, "gray", 1
    if name == "edges":
        return "edges", np.ma.masked_where(values > 1, values), "gray", 1
    return name, values, "gray", 255
