"""panels.png: image, truth, prediction and error of a few held-out samples, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from densebnn.atomic import atomic_path
from densebnn.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from densebnn.tasks import Task

__all__ = ["write_panels"]


@torch.no_grad()
def write_panels(path: Path, model: nn.Module, task: Task, samples: Sequence[Mapping[str, Tensor]]) -> None:
    """Predict `samples` (each a transformed sample, not a batch) and write a row of pictures for each.

    Depth is coloured from the nearest to the farthest true depth of its sample, its error from 0 to 1 m; labels by
    class, their error white where the prediction is wrong. Pixels without truth are grey.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    model.eval()
    device = next(model.parameters()).device
    height, width = samples[0]["image"].shape[1:]
    rows = [task.pictures(_on_cpu(model(sample["image"].unsqueeze(0).to(device))), sample) for sample in samples]
    columns = 1 + len(rows[0])
    size = (3 * columns, len(samples) * (3 * height / width + 0.25))
    figure = Figure(figsize=size, layout="constrained", dpi=100)
    axes = figure.subplots(len(samples), columns, squeeze=False)
    for row, sample, pictures in zip(axes, samples, rows, strict=True):
        row[0].imshow(_photograph(sample["image"]))
        row[0].set_title("image", fontsize=9)
        for axis, picture in zip(row[1:], pictures, strict=True):
            axis.imshow(picture.rgb(), interpolation="nearest")
            axis.set_title(picture.title, fontsize=9)
        for axis in row:
            axis.set_axis_off()
    with atomic_path(path) as temporary:
        figure.set_canvas(FigureCanvasAgg(figure))
        figure.savefig(temporary, format="png")


def _on_cpu(prediction: Any) -> Any:
    if isinstance(prediction, Mapping):
        return {name: tensor.cpu() for name, tensor in prediction.items()}
    return prediction.cpu()


def _photograph(image: Tensor) -> np.ndarray:
    """Return a normalised (3, H, W) image as (H, W, 3) in [0, 1]."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (image * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()
