"""The segmentation figures, all from one integer confusion matrix over every image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from densebnn.registry import UserError
from densebnn.tasks.base import TaskMetrics, check_labels, check_maps, require_finite
from densebnn.tasks.protocols import SEGMENTATION_PROTOCOLS, SegmentationProtocol

__all__ = ["SegmentationMetrics", "confusion_figures", "confusion_matrix"]


def confusion_matrix(truth: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Return the int64 (C, C) counts of (truth, predicted) pairs, truth along the rows.

    Args:
        truth: int64 (P,), 0..C-1.
        predicted: int64 (P,), 0..C-1.
        num_classes: C.
    """
    counts = torch.bincount(truth * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def confusion_figures(confusion: Tensor) -> dict[str, Any]:
    """Return the figures of an int64 (C, C) confusion matrix, truth along the rows; None where undefined.

    - `miou`: the mean of IoU_c = TP / (TP + FP + FN) over the classes with a union, that is, present in truth or
      prediction. Other code counts absent classes as 0 or leaves out those absent from the truth; on the full NYUD-v2
      test set with 40 classes all agree.
    - `pixel_accuracy`, `mean_accuracy` (over the classes present in the truth), `frequency_weighted_iou`.
    - `per_class_iou`: a list of C, None for classes without a union.
    - `miou_constant`: the mIoU of the best constant prediction, the most frequent class everywhere: its share of the
      pixels divided by the number of classes present in the truth. `miou_over_constant` is the ratio to it.
    - `pixels`: pixels scored.
    """
    matrix = confusion.double()
    hits, in_truth, in_prediction = matrix.diagonal(), matrix.sum(dim=1), matrix.sum(dim=0)
    pixels = int(confusion.sum())
    union = in_truth + in_prediction - hits
    iou = hits / union.clamp_min(1)
    per_class = [value if seen else None for value, seen in zip(iou.tolist(), (union > 0).tolist(), strict=True)]
    if pixels == 0:
        names = ("miou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")
        constants = ("miou_constant", "miou_over_constant")
        return {**dict.fromkeys((*names, *constants)), "per_class_iou": per_class, "pixels": 0}
    present = in_truth > 0
    miou = iou[union > 0].mean().item()
    constant = (in_truth.max() / pixels / present.sum()).item()
    return {
        "miou": miou,
        "pixel_accuracy": (hits.sum() / pixels).item(),
        "mean_accuracy": (hits[present] / in_truth[present]).mean().item(),
        "frequency_weighted_iou": (in_truth * iou).sum().item() / pixels,
        "miou_constant": constant,
        "miou_over_constant": miou / constant,
        "per_class_iou": per_class,
        "pixels": pixels,
    }


class SegmentationMetrics(TaskMetrics):
    """Figures of a semantic segmentation; `compute` returns those of `confusion_figures` and `images`, the images seen.

    The state is one int64 confusion matrix, so the figures depend neither on the batch size nor on the number of
    processes.

    Args:
        num_classes: C.
        ignore_index: The label of pixels that do not count, neither as hits nor as false alarms.
        class_names: C names, in the order of `per_class_iou`; numbers if not given.
        protocol: Which region counts.

    Raises:
        UserError: `ignore_index` is a class, or the number of names is not C.
    """

    fields = ("label",)
    confusion: Tensor
    images: Tensor

    def __init__(
        self,
        num_classes: int,
        ignore_index: int = 255,
        class_names: Sequence[str] | None = None,
        protocol: SegmentationProtocol = SEGMENTATION_PROTOCOLS["full"],
    ) -> None:
        super().__init__()
        if 0 <= ignore_index < num_classes:
            raise UserError(
                f"ignore_index {ignore_index} is one of the {num_classes} classes; choose a number beyond them"
            )
        self.class_names = tuple(map(str, range(num_classes))) if class_names is None else tuple(class_names)
        if len(self.class_names) != num_classes:
            raise UserError(
                f"{len(self.class_names)} class names for {num_classes} classes; give one name for each class"
            )
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.protocol = protocol
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add a batch.

        Args:
            prediction: (N, C, H', W') logits; another size than the truth's is resized to it bilinearly before the
                argmax.
            batch: Holds `label`, int64 (N, H, W).

        Raises:
            UserError: The logits hold NaN or infinite values, or a label is neither a class nor `ignore_index`.
        """
        labels = batch["label"]
        check_maps(prediction, labels, self.num_classes, same_size=False)
        require_finite(prediction, batch)
        check_labels(labels, self.num_classes, batch, self.ignore_index)
        rows, columns = self.protocol.region(labels.shape[1], labels.shape[2])
        matrices = []
        # One image at a time: 40 channels of logits at full resolution for a whole batch would be hundreds of
        # megabytes.
        for logits, label in zip(prediction, labels, strict=True):
            predicted = _resized(logits.float(), label.shape).argmax(dim=0)[rows, columns]
            truth = label[rows, columns]
            valid = truth != self.ignore_index
            matrices.append(confusion_matrix(truth[valid], predicted[valid], self.num_classes))
        self._add(matrices, batch)

    def _add(self, matrices: Sequence[Tensor], batch: Mapping[str, Tensor]) -> None:
        for matrix in matrices:
            self.confusion += matrix
        self.images += len(matrices)

    def compute(self) -> dict[str, Any]:
        """Return the figures of `confusion_figures` and the number of images."""
        return {**confusion_figures(self.confusion), "images": int(self.images)}


def _resized(logits: Tensor, size: torch.Size) -> Tensor:
    if logits.shape[1:] == size:
        return logits
    return F.interpolate(logits[None], size=tuple(size), mode="bilinear", align_corners=False)[0]
