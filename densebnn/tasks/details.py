"""Metrics that tell more than figures: each image's own, errors by distance, and which class is taken for which."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from densebnn.tasks.base import TaskMetrics
from densebnn.tasks.confusion import SegmentationMetrics, confusion_figures
from densebnn.tasks.depth_metrics import DepthMetrics, error_sums, figures

__all__ = [
    "CONFUSION_CLASSES",
    "DISTANCES",
    "DetailedDepthMetrics",
    "DetailedSegmentationMetrics",
    "ImageRows",
    "split_details",
]

DISTANCES = tuple(float(metres) for metres in range(11))
"""Metres, the lower edges of the bins by true distance; the last one has no upper edge."""

CONFUSION_CLASSES = 40
"""So many classes, the most frequent ones of the truth, have a row of their own in a confusion matrix."""


class ImageRows(TaskMetrics):
    """A metric that keeps a figure of each image, to be mixed with another.

    Attributes:
        rows: float64 (N, 2) for each batch: index and figure, NaN for none.
    """

    rows: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_state("rows", [], dist_reduce_fx="cat")

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the states; a process without any image takes part too, or the others would wait for it."""
        if isinstance(self.rows, list) and not self.rows:
            self.rows = [torch.zeros(0, 2, dtype=torch.float64, device=self.device)]
        super().sync(*args, **kwargs)

    def _add_rows(self, batch: Mapping[str, Tensor], values: Tensor) -> None:
        index = batch["index"].to(self.device, torch.float64)
        self.rows.append(torch.stack([index, values.to(self.device)], dim=1))

    def _images(self) -> list[list[Any]]:
        """Return (index, figure or None) pairs, sorted."""
        rows = [row for part in self.rows for row in part.reshape(-1, 2).tolist()]
        pairs = sorted((int(index), value) for index, value in rows)
        return [[index, None if math.isnan(value) else value] for index, value in pairs]


class DetailedDepthMetrics(ImageRows, DepthMetrics):
    """`DepthMetrics` whose figures also hold a dictionary `details`.

    - `images`: pairs of a sample's index and its RMSE under the protocol, None without truth; sorted by index.
    - `distance`: for each bin of true distance that holds pixels `from` and `to` (metres, None for no end), `pixels`,
      `rmse` (metres) and `abs_rel`, pooled over all images.

    Batches must carry `index`.
    """

    distance_sums: Tensor
    distance_pixels: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_state("distance_sums", torch.zeros(len(DISTANCES), 9, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("distance_pixels", torch.zeros(len(DISTANCES), dtype=torch.int64), dist_reduce_fx="sum")

    def _add(self, p: Tensor, g: Tensor, valid: Tensor, batch: Mapping[str, Tensor]) -> None:
        super()._add(p, g, valid, batch)
        for number, (low, high) in enumerate(_bins()):
            inside = valid & (g >= low) & (g < high)
            self.distance_sums[number] += error_sums(p, g, inside).sum(dim=0)
            self.distance_pixels[number] += inside.sum()
        count = valid.flatten(1).sum(dim=1)
        rmse = figures(error_sums(p, g, valid), count)[:, 0]
        self._add_rows(batch, torch.where(count > 0, rmse, math.nan))

    def compute(self) -> dict[str, Any]:
        """Return the figures, and `details`."""
        found = figures(self.distance_sums, self.distance_pixels)
        distance = [
            {"from": low, "to": high if high < math.inf else None, "pixels": pixels, "rmse": row[0], "abs_rel": row[2]}
            for (low, high), pixels, row in zip(_bins(), self.distance_pixels.tolist(), found.tolist(), strict=True)
            if pixels
        ]
        return {**super().compute(), "details": {"images": self._images(), "distance": distance}}


class DetailedSegmentationMetrics(ImageRows, SegmentationMetrics):
    """`SegmentationMetrics` whose figures also hold a dictionary `details`.

    - `images`: pairs of a sample's index and the mIoU of this image alone, None without truth; sorted by index.
    - `classes`: names of the rows of `confusion`. With more than `CONFUSION_CLASSES` classes these are the most
      frequent ones of the truth and `(others)`.
    - `confusion`: pixels, a list for each true class, along the predicted ones.

    Batches must carry `index`.
    """

    def _add(self, matrices: Sequence[Tensor], batch: Mapping[str, Tensor]) -> None:
        super()._add(matrices, batch)
        miou = [confusion_figures(matrix)["miou"] for matrix in matrices]
        values = [math.nan if value is None else value for value in miou]
        self._add_rows(batch, torch.tensor(values, dtype=torch.float64))

    def compute(self) -> dict[str, Any]:
        """Return the figures, and `details`."""
        names, matrix = _reduced(self.confusion.cpu(), self.class_names)
        details = {"images": self._images(), "classes": names, "confusion": matrix.tolist()}
        return {**super().compute(), "details": details}


def split_details(found: Mapping[str, Any], task: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return figures without their details, and the details by task.

    Args:
        found: figures of a task, or of several tasks by name; with details or without.
        task: the name of a single task.
    """
    if "details" in found:
        return {key: value for key, value in found.items() if key != "details"}, {task: found["details"]}
    parts = {name: split_details(part, name) for name, part in found.items() if isinstance(part, Mapping)}
    plain = {name: parts[name][0] if name in parts else value for name, value in found.items()}
    return plain, {name: details for _, told in parts.values() for name, details in told.items()}


def _bins() -> list[tuple[float, float]]:
    return list(zip(DISTANCES, (*DISTANCES[1:], math.inf), strict=True))


def _reduced(confusion: Tensor, names: Sequence[str]) -> tuple[list[str], Tensor]:
    """Return names and matrix with all but the most frequent classes added up to one."""
    if len(names) <= CONFUSION_CLASSES:
        return list(names), confusion
    frequent = confusion.sum(dim=1).argsort(descending=True, stable=True)[:CONFUSION_CLASSES].sort().values
    place = torch.full((len(names),), CONFUSION_CLASSES)
    place[frequent] = torch.arange(CONFUSION_CLASSES)
    size = CONFUSION_CLASSES + 1
    cells = (place[:, None] * size + place[None, :]).flatten()
    reduced = torch.zeros(size * size, dtype=confusion.dtype).scatter_add_(0, cells, confusion.flatten())
    return [*(names[index] for index in frequent.tolist()), "(others)"], reduced.reshape(size, size)
