"""panels.png: image, truth, prediction and error of a few held-out samples, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densebnn.atomic import atomic_path
from densebnn.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from densebnn.tasks import Depth, Segmentation, Task

__all__ = ["write_panels"]


@torch.no_grad()
def write_panels(path: Path, model: nn.Module, task: Task, samples: Sequence[Mapping[str, Tensor]]) -> None:
    """Predict `samples` (each a transformed sample, not a batch) and write one row of four pictures for each.

    Depth is coloured from the nearest to the farthest true depth of its sample, its error from 0 to 1 m; labels by
    class, their error white where the prediction is wrong. Pixels without truth are grey.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    model.eval()
    device = next(model.parameters()).device
    titles = ("image", "truth", "prediction", "error")
    height, width = samples[0]["image"].shape[1:]
    figure = Figure(figsize=(12, 3 * len(samples) * height / width + 0.3), layout="constrained", dpi=100)
    axes = figure.subplots(len(samples), 4, squeeze=False)
    for row, sample in zip(axes, samples, strict=True):
        prediction = model(sample["image"].unsqueeze(0).to(device)).cpu()
        for axis, title, picture in zip(row, titles, _pictures(task, sample, prediction), strict=True):
            axis.imshow(picture.pop("data"), interpolation="nearest", **picture)
            axis.set_axis_off()
            if row is axes[0]:
                axis.set_title(title)
    with atomic_path(path) as temporary:
        figure.set_canvas(FigureCanvasAgg(figure))
        figure.savefig(temporary, format="png")


def _pictures(task: Task, sample: Mapping[str, Tensor], prediction: Tensor) -> list[dict[str, Any]]:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    image = (sample["image"] * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()
    truth = sample[task.fields[0]]
    prediction = F.interpolate(prediction, truth.shape, mode="bilinear", align_corners=False)[0]
    if isinstance(task, Depth):
        return [{"data": image}, *_depth_pictures(truth.numpy(), prediction[0].numpy())]
    assert isinstance(task, Segmentation)
    return [{"data": image}, *_label_pictures(truth.numpy(), prediction.argmax(0).numpy(), task)]


def _depth_pictures(truth: np.ndarray, prediction: np.ndarray) -> list[dict[str, Any]]:
    hidden = np.ma.masked_where(truth <= 0, truth)
    near, far = (float(hidden.min()), float(hidden.max())) if hidden.count() else (0.0, 10.0)
    scale = {"cmap": _grey_where_masked("turbo_r"), "vmin": near, "vmax": far}
    error = np.ma.masked_where(truth <= 0, np.abs(prediction - truth))
    return [
        {"data": hidden, **scale},
        {"data": prediction, **scale},
        {"data": error, "cmap": _grey_where_masked("magma"), "vmin": 0.0, "vmax": 1.0},
    ]


def _label_pictures(truth: np.ndarray, prediction: np.ndarray, task: Segmentation) -> list[dict[str, Any]]:
    ignored = truth == task.ignore_index
    scale = {"cmap": _grey_where_masked("tab20"), "vmin": 0, "vmax": max(task.out_channels - 1, 1)}
    return [
        {"data": np.ma.masked_where(ignored, truth), **scale},
        {"data": prediction, **scale},
        {
            "data": np.ma.masked_where(ignored, prediction != truth),
            "cmap": _grey_where_masked("gray"),
            "vmin": 0,
            "vmax": 1,
        },
    ]


def _grey_where_masked(name: str) -> Any:
    import matplotlib

    colours = matplotlib.colormaps[name].copy()
    colours.set_bad("0.5")
    return colours
