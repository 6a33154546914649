"""Semantic segmentation: a loss over labels and the figures of one confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densebnn.registry import UserError
from densebnn.tasks.base import TASKS, DenseTask, check_labels, check_maps
from densebnn.tasks.confusion import SegmentationMetrics
from densebnn.tasks.details import DetailedSegmentationMetrics
from densebnn.tasks.distillation import logit_distillation, resized_like
from densebnn.tasks.pictures import Picture, label_pictures
from densebnn.tasks.protocols import SEGMENTATION_PROTOCOLS, SegmentationProtocol
from densebnn.tasks.segmentation_losses import SegmentationLoss, weighted_cross_entropy

__all__ = ["Segmentation"]


class Segmentation(DenseTask):
    """Label every pixel: logits (N, C, H, W) against `label` (N, H, W), ranked by mIoU.

    Args:
        num_classes: C.
        ignore_index: The label of pixels that count neither in the loss nor in the metric.
        class_names: C names for reports; numbers if not given.
        protocol: Which region the metric looks at; the loss looks at the whole frame.
        loss: See `segmentation_losses.SEGMENTATION_LOSSES`.
        class_weights: C factors of the true classes in the cross-entropy; none weighs all the same.

    Raises:
        UserError: There are fewer than 2 classes, `ignore_index` is a class, or the number of names or weights is not
            C; or a weight is negative, or all are 0.
    """

    name = "segmentation"
    fields = ("label",)
    headline = "miou"
    higher_is_better = True
    protocol: SegmentationProtocol

    def __init__(
        self,
        num_classes: int,
        ignore_index: int = 255,
        class_names: Sequence[str] | None = None,
        protocol: SegmentationProtocol = SEGMENTATION_PROTOCOLS["full"],
        loss: SegmentationLoss = weighted_cross_entropy,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        if num_classes < 2:
            raise UserError(f"num_classes is {num_classes}; segmentation needs at least 2 classes")
        self.out_channels = num_classes
        self.ignore_index = ignore_index
        self.class_names = class_names
        self.protocol = protocol
        self._loss = loss
        self._class_weights = None if class_weights is None else _checked(class_weights, num_classes)
        self.metrics()  # refuses contradicting arguments now, not after an epoch of training

    def head(self) -> nn.Module:
        """Return the identity: the raw outputs are the logits."""
        return nn.Identity()

    def loss(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss over the pixels that are not ignored.

        Raises:
            UserError: A label is neither a class nor `ignore_index`.
        """
        label = batch["label"]
        check_maps(prediction, label, self.out_channels, same_size=True)
        check_labels(label, self.out_channels, batch, self.ignore_index)
        return self._loss(prediction, label, self.ignore_index, self._class_weights)

    def distillation(self, prediction: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
        """Return T² · KL(softmax(teacher / T) ‖ softmax(prediction / T)), the mean over pixels."""
        return logit_distillation(prediction, resized_like(teacher, prediction), temperature)

    def metrics(self) -> SegmentationMetrics:
        """Return a new `SegmentationMetrics` under the task's protocol."""
        return SegmentationMetrics(self.out_channels, self.ignore_index, self.class_names, self.protocol)

    @property
    def described(self) -> str:
        """How its figures are computed, with the number of classes."""
        return f"{self.protocol.description}; {self.out_channels} classes, label {self.ignore_index} left out"

    def detailed_metrics(self) -> DetailedSegmentationMetrics:
        """Return a new metric of the same figures, with each image's and the confusion matrix."""
        return DetailedSegmentationMetrics(self.out_channels, self.ignore_index, self.class_names, self.protocol)

    def pictures(self, prediction: Tensor, sample: Mapping[str, Tensor]) -> list[Picture]:
        """Return true classes, predicted classes and where they differ."""
        truth = sample["label"]
        resized = F.interpolate(prediction, truth.shape, mode="bilinear", align_corners=False)
        return label_pictures(truth.numpy(), resized[0].argmax(0).numpy(), self.out_channels, self.ignore_index)


def _checked(weights: Sequence[float], num_classes: int) -> Tensor:
    if len(weights) != num_classes:
        raise UserError(f"{len(weights)} class weights for {num_classes} classes; give one for each class")
    if not (all(0 <= weight < float("inf") for weight in weights) and any(weights)):
        raise UserError(f"class weights must be 0 or more, one of them positive, got {list(weights)}")
    return torch.tensor(weights, dtype=torch.float64)


TASKS.register("segmentation")(Segmentation)
