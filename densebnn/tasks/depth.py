"""Monocular depth: a head that gives metres, a masked regression loss, and the figures of a protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densebnn.registry import UserError
from densebnn.tasks.base import TASKS, DenseTask, check_maps
from densebnn.tasks.depth_heads import DEPTH_HEADS, DepthHead
from densebnn.tasks.depth_metrics import DepthMetrics
from densebnn.tasks.details import DetailedDepthMetrics
from densebnn.tasks.distillation import depth_distillation, resized_like
from densebnn.tasks.losses import DepthLoss, silog
from densebnn.tasks.pictures import Picture, depth_pictures
from densebnn.tasks.protocols import DEPTH_PROTOCOLS, DepthProtocol

__all__ = ["Depth"]


class Depth(DenseTask):
    """Predict metres: (N, 1, H, W) against a truth of (N, H, W), ranked by the protocol's RMSE.

    The loss counts the pixels whose truth is positive, finite and at most `max_depth`.

    Args:
        loss: See `losses.DEPTH_LOSSES`.
        protocol: How the metric is computed.
        min_depth: Metres, the smallest prediction.
        max_depth: Metres, the largest prediction.
        mean_depth: Metres, the mean of the training truth, where the prediction starts.
        ground_truth: The batch field to train on: `depth` (filled) or `raw_depth` (with holes).
        head: See `depth_heads.DEPTH_HEADS`.
        bins: How many the head has, if it has bins.

    Raises:
        UserError: The range is not in increasing order or has no such bins (see `depth_heads`), or there is no such
            ground truth.
    """

    name = "depth"
    headline = "rmse"
    higher_is_better = False
    regression = True
    protocol: DepthProtocol

    def __init__(
        self,
        loss: DepthLoss = silog,
        protocol: DepthProtocol = DEPTH_PROTOCOLS["eigen"],
        min_depth: float = 0.1,
        max_depth: float = 10.0,
        mean_depth: float = 2.7,
        ground_truth: Literal["depth", "raw_depth"] = "depth",
        head: DepthHead = DEPTH_HEADS["bounded"],
        bins: int = 64,
    ) -> None:
        if ground_truth not in ("depth", "raw_depth"):
            raise UserError(f"ground_truth is {ground_truth!r}; choose 'depth' or 'raw_depth'")
        self.fields = (ground_truth,)
        self.protocol = protocol
        self.max_depth = max_depth
        self._loss = loss
        self._make_head, self._range = head.make, (min_depth, max_depth, mean_depth, bins)
        self.out_channels = head.channels(bins)
        self.head()  # refuses a contradicting range now

    def head(self) -> nn.Module:
        """Return a new head with the task's range: raw outputs (N, out_channels, H, W) -> metres (N, 1, H, W)."""
        return self._make_head(*self._range)

    def loss(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of metres (N, 1, H, W) over the valid pixels of the batch."""
        truth = batch[self.fields[0]]
        check_maps(prediction, truth, 1, same_size=True)
        valid = (truth > 0) & (truth <= self.max_depth) & torch.isfinite(truth)
        return self._loss(prediction[:, 0], truth, valid)

    def distillation(self, prediction: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
        """Return the mean of |ln prediction - ln teacher|; there is no temperature of metres."""
        return depth_distillation(prediction, resized_like(teacher, prediction))

    def metrics(self) -> DepthMetrics:
        """Return a new `DepthMetrics` under the task's protocol."""
        return DepthMetrics(self.protocol)

    def detailed_metrics(self) -> DetailedDepthMetrics:
        """Return a new metric of the same figures, with each image's and errors by distance."""
        return DetailedDepthMetrics(self.protocol)

    def pictures(self, prediction: Tensor, sample: Mapping[str, Tensor]) -> list[Picture]:
        """Return truth, prediction and error in metres."""
        truth = sample[self.fields[0]]
        resized = F.interpolate(prediction, truth.shape, mode="bilinear", align_corners=False)
        return depth_pictures(truth.numpy(), resized[0, 0].numpy())


TASKS.register("depth")(Depth)
