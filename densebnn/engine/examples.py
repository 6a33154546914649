"""Pictures of the best, the middle and the worst held-out images, as files that a report shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from densebnn.atomic import atomic_path, writing_to
from densebnn.data.loading import Samples, Transform
from densebnn.tasks import Task

__all__ = ["chosen_images", "write_examples"]

_WIDTH = 400
"""Pixels; wider pictures are made smaller."""


def chosen_images(images: Sequence[Sequence[Any]], *, higher_is_better: bool, each: int = 2) -> list[tuple[str, int]]:
    """Return (`best`, `median` or `worst`, index) of some images, best first, none twice.

    Args:
        images: pairs of an index and its figure; those without are left out.
        higher_is_better: what is good.
        each: how many of each kind at most.
    """
    scored = [(value, index) for index, value in images if value is not None]
    order = [
        index for _, index in sorted(scored, key=lambda pair: (-pair[0] if higher_is_better else pair[0], pair[1]))
    ]
    middle = max((len(order) - each) // 2, 0)
    wanted = {"best": order[:each], "worst": order[::-1][:each][::-1], "median": order[middle : middle + each]}
    taken: dict[int, str] = {}
    for kind, indices in wanted.items():
        for index in indices:
            taken.setdefault(index, kind)
    return [(taken[index], index) for index in order if index in taken]


@torch.no_grad()
def write_examples(
    folder: Path,
    model: nn.Module,
    parts: Mapping[str, Task],
    details: Mapping[str, Any],
    frames: Samples,
    transform: Transform,
) -> list[dict[str, Any]]:
    """Predict chosen images of each task, write their pictures, and return what they are.

    Args:
        folder: where to; `depth-000012-truth.png` and the like are written, made if it is not there.
        model: image -> prediction, or a dictionary of predictions by task.
        parts: the tasks by name.
        details: of the tasks, with the figure of each image.
        frames: the samples that `details` speaks of.
        transform: what makes them the model's input.

    Returns:
        For each example `task`, `kind` (best, median, worst), `index`, `figure`, `headline`, and `pictures`, each with
        `title` and `file`.
    """
    model.eval()
    device = next(model.parameters()).device
    with writing_to(folder, inside=folder.parent):
        folder.mkdir(exist_ok=True)
    told = []
    for task, kind, index, figure in _examples(parts, details):
        frame = frames[index]
        sample = transform(frame, 0)
        prediction = model(sample["image"].unsqueeze(0).to(device))
        own = (prediction[task] if isinstance(prediction, Mapping) else prediction).cpu()
        pictures = [("image", frame["image"], "jpg")]
        pictures += [(picture.title, picture.rgb(), "png") for picture in parts[task].pictures(own, sample)]
        files = []
        for number, (title, pixels, ending) in enumerate(pictures):
            name = f"{task}-{index:06d}-{number}.{ending}"
            _write_picture(folder / name, pixels)
            files.append({"title": title, "file": f"{folder.name}/{name}"})
        told.append({"task": task, "kind": kind, "index": index, "headline": parts[task].headline, "figure": figure})
        told[-1]["pictures"] = files
    return told


def _examples(parts: Mapping[str, Task], details: Mapping[str, Any]) -> Iterator[tuple[str, str, int, float]]:
    for name, task in parts.items():
        images = details.get(name, {}).get("images", ())
        figures = dict(images)
        for kind, index in chosen_images(images, higher_is_better=bool(task.higher_is_better)):
            yield name, kind, index, figures[index]


def _write_picture(path: Path, pixels: np.ndarray) -> None:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if image.width > _WIDTH:
        smooth = path.suffix == ".jpg"
        size = (_WIDTH, max(round(image.height * _WIDTH / image.width), 1))
        image = image.resize(size, Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST)
    with atomic_path(path) as temporary:
        if path.suffix == ".jpg":
            image.save(temporary, format="JPEG", quality=85)
        else:
            image.save(temporary, format="PNG", optimize=True)
