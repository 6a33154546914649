"""Image classification: cross-entropy and top-1/top-5 accuracy."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from densebnn.registry import UserError
from densebnn.tasks.base import TASKS, Task, TaskMetrics, check_labels, require_finite
from densebnn.tasks.losses import cross_entropy

__all__ = ["Classification", "ClassificationMetrics"]


class ClassificationMetrics(TaskMetrics):
    """Top-1 and top-5 accuracy from integer counts; `compute` returns `top1`, `top5` and `images`.

    `top5` is None with fewer than six classes, where it would be 1 for any model. Of equal logits the first one ranks
    higher, as in `argmax`. Without images both are None.

    Args:
        num_classes: C.
    """

    fields = ("target",)
    hits: Tensor
    images: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.add_state("hits", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add logits (N, C) with `batch["target"]`, int64 (N,).

        Raises:
            UserError: The logits hold NaN or infinite values, or a target is not a class.
        """
        target = batch["target"]
        _check_logits(prediction, target, self.num_classes)
        require_finite(prediction, batch)
        check_labels(target, self.num_classes, batch, field="target")
        true = prediction.gather(1, target.unsqueeze(1))
        earlier = torch.arange(self.num_classes, device=target.device) < target.unsqueeze(1)
        rank = ((prediction > true) | ((prediction == true) & earlier)).sum(dim=1)
        self.hits += torch.stack([(rank < 1).sum(), (rank < 5).sum()])
        self.images += len(target)

    def compute(self) -> dict[str, float | int | None]:
        """Return `top1`, `top5` (shares) and `images`."""
        images = int(self.images)
        top1, top5 = (self.hits.double() / images).tolist() if images else (None, None)
        return {"top1": top1, "top5": top5 if self.num_classes > 5 else None, "images": images}


class Classification(Task[Tensor]):
    """Classify an image: logits (N, C) against `target` (N,), cross-entropy, ranked by top-1 accuracy.

    Args:
        num_classes: C.
        label_smoothing: See `cross_entropy`; in [0, 1).

    Raises:
        UserError: An argument is out of its range.
    """

    name = "classification"
    out_channels: int
    fields = ("target",)
    headline = "top1"
    higher_is_better = True

    def __init__(self, num_classes: int, label_smoothing: float = 0.0) -> None:
        if num_classes < 2:
            raise UserError(f"num_classes is {num_classes}; classification needs at least 2 classes")
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing is {label_smoothing}; it must be at least 0 and below 1")
        self.out_channels = num_classes
        self.label_smoothing = label_smoothing

    def head(self) -> nn.Module:
        """Return the identity: the raw outputs are the logits."""
        return nn.Identity()

    def loss(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the cross-entropy of logits (N, C) with `batch["target"]`; `UserError` if a target is not a class."""
        target = batch["target"]
        _check_logits(prediction, target, self.out_channels)
        check_labels(target, self.out_channels, batch, field="target")
        return cross_entropy(prediction, target, label_smoothing=self.label_smoothing)

    def metrics(self) -> ClassificationMetrics:
        """Return a new `ClassificationMetrics`."""
        return ClassificationMetrics(self.out_channels)


def _check_logits(prediction: Tensor, target: Tensor, num_classes: int) -> None:
    if prediction.shape != (*target.shape, num_classes) or target.ndim != 1:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} does not fit the target {tuple(target.shape)}: "
            f"expected (N, {num_classes}) against (N,)"
        )


TASKS.register("classification")(Classification)
