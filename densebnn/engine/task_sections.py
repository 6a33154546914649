"""The sections of a configuration that say what to predict: each task, and how several are weighed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from densebnn.engine.recipe import positive
from densebnn.registry import UserError, nearest

__all__ = [
    "DENSE_TASKS",
    "DepthConfig",
    "EdgesConfig",
    "NormalsConfig",
    "SegmentationConfig",
    "WeightsConfig",
    "task_names",
]

DENSE_TASKS = ("segmentation", "depth", "normals", "edges")
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
    """Loss: l1, l2, l1_log, silog, berhu or gradient (only to add to another one), or a sum such as
    silog+0.5*gradient."""
    silog_focus: float = 0.85
    """Share of the mean log error's square that silog forgives: 0.85 as in BTS, 0.5 as Eigen et al. 2014."""
    head: str = "bounded"
    """Head: bounded (a sigmoid between smallest and largest), bins_uniform or bins_log (an expectation over bins)."""
    bins: int = 64
    """Bins of such a head."""
    protocol: str = "laina"
    """Evaluation protocol: eigen, mtl or laina."""
    ground_truth: Literal["depth", "raw_depth"] = "depth"
    """Train on the filled depths or on the sensor's raw ones."""
    min_depth: float = 0.1
    """Smallest prediction in metres."""
    max_depth: float = 10.0
    """Largest prediction in metres."""

    def __post_init__(self) -> None:
        if not 0 <= self.silog_focus <= 1:
            raise UserError(f"depth.silog_focus must be from 0 to 1, got {self.silog_focus}")
        if not 2 <= self.bins <= 4096:
            raise UserError(f"depth.bins must be from 2 to 4096, got {self.bins}")


@dataclass(frozen=True)
class SegmentationConfig:
    """The segmentation task."""

    classes: Literal[40, 13, 894] = 13
    """Number of classes."""
    loss: str = "cross_entropy"
    """Loss: cross_entropy, dice or lovasz, or a sum such as cross_entropy+0.5*dice."""
    class_weights: Literal["none", "balanced"] | tuple[float, ...] = "none"
    """Weights of the classes in the cross-entropy: none, balanced (from the training labels, by median frequency), or
    one number for each class."""
    protocol: str = "full"
    """Evaluation protocol: full or gupta."""


@dataclass(frozen=True)
class NormalsConfig:
    """The task of surface normals."""

    loss: str = "l1"
    """Loss: l1 or cosine."""
    protocol: str = "full"
    """Evaluation protocol: full or gupta."""


@dataclass(frozen=True)
class EdgesConfig:
    """The task of edges."""

    loss: str = "cross_entropy"
    """Loss: cross_entropy or dice."""
    positive_weight: float = 0.95
    """Weight of edges in the cross-entropy; all else has 1 minus it."""
    protocol: str = "distance"
    """Evaluation protocol: distance, bsds or mtl."""

    def __post_init__(self) -> None:
        if not 0 < self.positive_weight < 1:
            raise UserError(f"edges.positive_weight must be between 0 and 1, got {self.positive_weight}")


@dataclass(frozen=True)
class WeightsConfig:
    """How the losses of several tasks become one; a single task's loss has no weight."""

    by: Literal["fixed", "uncertainty"] = "fixed"
    """The weights below, or times ones that are learned with the tasks' uncertainty (Kendall et al. 2018)."""
    segmentation: float = 1.0
    """Factor of the segmentation's loss."""
    depth: float = 1.0
    """Factor of the depth's loss."""
    normals: float = 10.0
    """Factor of the normals' loss."""
    edges: float = 50.0
    """Factor of the edges' loss."""

    def __post_init__(self) -> None:
        positive(**{f"weights.{name}": getattr(self, name) for name in DENSE_TASKS})
