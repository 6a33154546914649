"""The sections of a configuration that say what to predict: each task, and how several are weighed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from densebnn.engine.recipe import positive
from densebnn.registry import UserError, nearest

__all__ = ["DENSE_TASKS", "DepthConfig", "SegmentationConfig", "WeightsConfig", "task_names"]

DENSE_TASKS = ("segmentation", "depth")
"""The tasks that can be learned together, in the order in which reports tell them."""


def task_names(text: str) -> tuple[str, ...]:
    """Return the tasks of a list with commas, in the order of `DENSE_TASKS`.

    Raises:
        UserError: none, an unknown one, or one twice.
    """
    names = [name.strip() for name in text.split(",")]
    known = ", ".join(DENSE_TASKS)
    for name in names:
        if name not in DENSE_TASKS:
            raise UserError(f"task: unknown task {name!r}{nearest(name, DENSE_TASKS)}; give one or more of {known}")
    if len(set(names)) < len(names):
        raise UserError(f"task: each task once, got {text}")
    return tuple(name for name in DENSE_TASKS if name in names)


@dataclass(frozen=True)
class DepthConfig:
    """The depth task."""

    loss: str = "l1_log"
    """Loss: l1, l1_log, silog or berhu."""
    protocol: str = "laina"
    """Evaluation protocol: eigen, mtl or laina."""
    ground_truth: Literal["depth", "raw_depth"] = "depth"
    """Train on the filled depths or on the sensor's raw ones."""
    min_depth: float = 0.1
    """Smallest prediction in metres."""
    max_depth: float = 10.0
    """Largest prediction in metres."""


@dataclass(frozen=True)
class SegmentationConfig:
    """The segmentation task."""

    classes: Literal[40, 13, 894] = 13
    """Number of classes."""
    protocol: str = "full"
    """Evaluation protocol: full or gupta."""


@dataclass(frozen=True)
class WeightsConfig:
    """How the losses of several tasks become one; a single task's loss has no weight."""

    by: Literal["fixed", "uncertainty"] = "fixed"
    """The weights below, or times ones that are learned with the tasks' uncertainty (Kendall et al. 2018)."""
    segmentation: float = 1.0
    """Factor of the segmentation's loss."""
    depth: float = 1.0
    """Factor of the depth's loss."""

    def __post_init__(self) -> None:
        positive(**{f"weights.{name}": getattr(self, name) for name in DENSE_TASKS})
