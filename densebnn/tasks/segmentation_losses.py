"""Segmentation losses by name: cross-entropy, and Dice and Lovasz of segmentation_models_pytorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import segmentation_models_pytorch as smp
import torch
from torch import Tensor

from densebnn.registry import Registry, UserError
from densebnn.tasks.losses import cross_entropy

__all__ = ["SEGMENTATION_LOSSES", "SegmentationLoss", "balanced_weights", "dice", "lovasz", "weighted_cross_entropy"]

SegmentationLoss = Callable[[Tensor, Tensor, int, Tensor | None], Tensor]
"""(logits (N, C, H, W), label int64 (N, H, W), ignored label, class weights (C,) or None) -> scalar."""

SEGMENTATION_LOSSES: Registry[SegmentationLoss] = Registry("segmentation loss")
"""Segmentation losses by name."""


@SEGMENTATION_LOSSES.register("cross_entropy")
def weighted_cross_entropy(logits: Tensor, label: Tensor, ignore_index: int, weights: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy over pixels that are not ignored, each weighed by its true class.

    With weights it is the weighted mean, sum w_y (-ln p_y) / sum w_y, as torch's is. 0 where everything is ignored.
    """
    if weights is None:
        return cross_entropy(logits, label, ignore_index)
    with torch.autocast(logits.device.type, enabled=False):
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        valid = label != ignore_index
        chosen = torch.where(valid, label, 0)
        entropy = -wide.log_softmax(dim=1).gather(1, chosen.unsqueeze(1)).squeeze(1)
        weight = torch.where(valid, weights.to(wide)[chosen], 0)
        return (weight * torch.where(valid, entropy, 0)).sum() / weight.sum().clamp_min(1e-12)


@SEGMENTATION_LOSSES.register("dice")
def dice(logits: Tensor, label: Tensor, ignore_index: int, weights: Tensor | None = None) -> Tensor:
    """Return smp's Dice loss of the batch: the mean over all C classes of 1 - 2 sum p y / (sum p + sum y).

    Sums go over the pixels of the batch that are not ignored; classes absent from the truth add 0 to the mean. Class
    weights are not used: every class counts the same already.
    """
    return _of_smp(smp.losses.DiceLoss(mode="multiclass", from_logits=True, ignore_index=ignore_index), logits, label)


@SEGMENTATION_LOSSES.register("lovasz")
def lovasz(logits: Tensor, label: Tensor, ignore_index: int, weights: Tensor | None = None) -> Tensor:
    """Return smp's Lovasz-softmax loss of the batch (Berman et al. 2018), the mean over classes present in the truth.

    Class weights are not used: every class counts the same already.
    """
    if not (label != ignore_index).any():
        return 0 * logits.float().sum()
    # it knows no double precision
    return _of_smp(smp.losses.LovaszLoss(mode="multiclass", ignore_index=ignore_index), logits.float(), label)


def _of_smp(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, label: Tensor) -> Tensor:
    with torch.autocast(logits.device.type, enabled=False):
        return loss(logits.to(torch.promote_types(logits.dtype, torch.float32)), label)


def balanced_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """Return class weights from the number of pixels of each class: median frequency balancing, 0 for absent classes.

    Eigen and Fergus 2015: median(f) / f_c, here with f_c the share of class c of all pixels and the median over the
    classes that occur.

    Raises:
        UserError: no pixel has a class.
    """
    present = torch.tensor([count for count in counts if count > 0], dtype=torch.float64)
    if not len(present):
        raise UserError("class_weights balanced: no pixel of the training set has a class; give weights or none")
    middle = present.quantile(0.5).item()
    return tuple(middle / count if count > 0 else 0.0 for count in counts)
