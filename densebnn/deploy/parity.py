"""How far two networks are apart on the same images: in what they predict, pixel by pixel, and in their figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from densebnn.registry import Registry
from densebnn.tasks.normals import angles

__all__ = ["MEASURES", "Differences", "Measure", "figure_changes"]


class Measure(NamedTuple):
    """How two predictions for one task are compared.

    Attributes:
        apart: predictions (N, C, H, W) and (N, C, H, W) -> distances (N, H, W).
        tolerance: pixels at a larger distance are counted as different.
        unit: of distances; none where two pixels are the same or not.
        differs: what a pixel is that is counted, for reports.
    """

    apart: Callable[[Tensor, Tensor], Tensor]
    tolerance: float
    unit: str | None
    differs: str


MEASURES: Registry[Measure] = Registry("task")
"""By the name of a task."""
MEASURES["segmentation"] = Measure(
    lambda ours, theirs: (ours.argmax(1) != theirs.argmax(1)).float(), 0.0, None, "of another class"
)
MEASURES["depth"] = Measure(
    lambda ours, theirs: (ours - theirs).abs().amax(1), 1e-3, "m", "with a depth that differs by more than 1 mm"
)
MEASURES["normals"] = Measure(
    lambda ours, theirs: angles(ours, theirs), 0.1, "degrees", "with a normal that differs by more than 0.1 degrees"
)
MEASURES["edges"] = Measure(
    lambda ours, theirs: ((ours > 0) != (theirs > 0)).any(1).float(), 0.0, None, "on the other side of probability 0.5"
)


class Differences:
    """Adds up the distances of two networks' predictions for one task, over all pixels of all images.

    Args:
        task: a key of `MEASURES`.
    """

    def __init__(self, task: str) -> None:
        self.measure = MEASURES[task]
        self.pixels = self.differing = 0
        self.sum = self.largest = 0.0

    @torch.no_grad()
    def update(self, ours: Tensor, theirs: Tensor) -> None:
        """Add the predictions (N, C, H, W) for a batch; in float64, so that comparing rounds nothing."""
        apart = self.measure.apart(ours.double(), theirs.double()).double()
        self.pixels += apart.numel()
        self.differing += int((~(apart <= self.measure.tolerance)).sum())  # NaN is never equal
        self.sum += float(apart.sum())
        self.largest = float(apart.max().clamp(min=self.largest))  # which keeps NaN

    def compute(self) -> dict[str, Any]:
        """Return the share of pixels that differ and, where distances have a unit, the largest and the mean one."""
        if self.pixels == 0:
            return {}
        found: dict[str, Any] = {"share_differing": self.differing / self.pixels}
        if self.measure.unit is not None:
            found |= {"largest": self.largest, "mean": self.sum / self.pixels, "unit": self.measure.unit}
        return found


def figure_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return before, after and difference of each number among two tasks' figures; of several tasks, by task.

    A figure that is undefined in one of them has no difference. Lists are left out.
    """
    changes: dict[str, Any] = {}
    for name, value in before.items():
        other = after[name]
        if isinstance(value, Mapping):
            changes[name] = figure_changes(value, other)
        elif not isinstance(value, (list, tuple, str)):
            undefined = value is None or other is None
            changes[name] = {"before": value, "after": other, "difference": None if undefined else other - value}
    return changes
