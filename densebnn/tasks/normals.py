"""Surface normals: unit vectors, a masked loss between them, and the figures of their angles."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densebnn.registry import Registry
from densebnn.tasks.base import TASKS, DenseTask, TaskMetrics, check_maps, require_finite
from densebnn.tasks.details import ImageRows
from densebnn.tasks.distillation import direction_distillation, resized_like
from densebnn.tasks.pictures import Picture, normal_pictures
from densebnn.tasks.protocols import NORMALS_PROTOCOLS, NormalsProtocol

__all__ = [
    "NORMALS_LOSSES",
    "DetailedNormalsMetrics",
    "Normals",
    "NormalsLoss",
    "NormalsMetrics",
    "UnitVectors",
    "angles",
]

NormalsLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(prediction (N, 3, H, W), truth (N, 3, H, W), both of length 1; valid bool (N, H, W)) -> scalar."""

NORMALS_LOSSES: Registry[NormalsLoss] = Registry("normals loss")
"""Losses of normals by name."""

_BINS = 36_000
"""Bins of 0.005 degrees, from which the median is read."""

_SMALLEST_NORM = 1e-3


@NORMALS_LOSSES.register("l1")
def l1(prediction: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Return the mean over valid pixels and the three components of |p - g|, as the multi-task literature has it."""
    return ((prediction - truth).abs().mean(dim=1) * valid).sum() / valid.sum().clamp_min(1)


@NORMALS_LOSSES.register("cosine")
def cosine(prediction: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Return the mean over valid pixels of 1 - cos, half the squared distance of the two vectors."""
    return (0.5 * (prediction - truth).square().sum(dim=1) * valid).sum() / valid.sum().clamp_min(1)


class UnitVectors(nn.Module):
    """Divide raw outputs (N, 3, H, W) by their length, in float32 also under autocast; a raw output of 0 stays 0."""

    def forward(self, x: Tensor) -> Tensor:
        """Return vectors of length 1."""
        return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1, eps=1e-6)


def angles(prediction: Tensor, truth: Tensor) -> Tensor:
    """Return the angles in degrees, 0 to 180, between vectors (..., 3, H, W) of any length, exact when small too."""
    across = torch.linalg.cross(prediction, truth, dim=-3).norm(dim=-3)
    return torch.rad2deg(torch.atan2(across, (prediction * truth).sum(dim=-3)))


def _prepared(truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return the truth (N, 3, H, W) with length 1, 0 where it is invalid, and where it is valid (N, H, W)."""
    size = truth.norm(dim=1)
    valid = torch.isfinite(size) & (size > _SMALLEST_NORM)
    return torch.where(valid[:, None], truth, 0) / torch.where(valid, size, 1)[:, None], valid


class NormalsMetrics(TaskMetrics):
    """Angles between predicted and true normals, over all valid pixels of all images at once.

    `compute` returns `mean_error` and `median_error` in degrees, `rmse` in degrees, `within_11.25`, `within_22.5` and
    `within_30`, the shares of pixels whose angle is below so many degrees, and `valid_pixels`, `images`. The median is
    read from bins of 0.005 degrees. Without valid pixels the figures are None.

    Args:
        protocol: Which region counts.
    """

    fields = ("normals",)
    sums: Tensor
    bins: Tensor
    within: Tensor
    images: Tensor

    def __init__(self, protocol: NormalsProtocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.add_state("sums", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("bins", torch.zeros(_BINS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("within", torch.zeros(3, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add a batch.

        Args:
            prediction: (N, 3, H', W'); another size than the truth's is resized to it bilinearly. A vector of length 0
                is 90 degrees off.
            batch: Holds `normals`, (N, 3, H, W); vectors of length 0 or not finite are missing values.

        Raises:
            UserError: The prediction holds NaN or infinite values.
        """
        normals = batch["normals"]
        check_maps(prediction, normals[:, 0], 3, same_size=False)
        require_finite(prediction, batch)
        truth, valid = _prepared(normals.double())
        prediction = prediction.double()
        if prediction.shape[2:] != truth.shape[2:]:
            prediction = F.interpolate(prediction, size=truth.shape[2:], mode="bilinear", align_corners=False)
        rows, columns = self.protocol.region(truth.shape[2], truth.shape[3])
        found = angles(prediction, truth)
        found = torch.where(prediction.norm(dim=1) > 0, found, 90.0)
        means = []
        for image, counted in zip(found[:, rows, columns], valid[:, rows, columns], strict=True):
            error = image[counted]  # one image at a time: its sum does not depend on its neighbours in the batch
            self.sums += torch.stack([error.sum(), error.square().sum()])
            self.bins += torch.bincount((error * (_BINS / 180)).long().clamp_max(_BINS - 1), minlength=_BINS)
            self.within += torch.stack([(error < limit).sum() for limit in (11.25, 22.5, 30.0)])
            means.append(error.mean())  # NaN without valid pixels
        self._seen(torch.stack(means), batch)
        self.images += len(truth)

    def _seen(self, means: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Take the mean error (N,) of each image of a batch."""

    def compute(self) -> dict[str, Any]:
        """Return the figures described above."""
        pixels = int(self.bins.sum())
        counts = {"valid_pixels": pixels, "images": int(self.images)}
        names = ("mean_error", "median_error", "rmse", "within_11.25", "within_22.5", "within_30")
        if pixels == 0:
            return {**dict.fromkeys(names), **counts}
        mean, square = (self.sums / pixels).tolist()
        shares = (self.within.double() / pixels).tolist()
        return {**dict(zip(names, (mean, self._median(pixels), math.sqrt(square), *shares), strict=True)), **counts}

    def _median(self, pixels: int) -> float:
        total = self.bins.cumsum(0)
        middle = [int((total <= rank).sum()) for rank in ((pixels - 1) // 2, pixels // 2)]
        return (sum(middle) / 2 + 0.5) * 180 / _BINS


class DetailedNormalsMetrics(ImageRows, NormalsMetrics):
    """`NormalsMetrics` whose figures also hold `details` with `images`, (index, mean error or None) pairs.

    Batches must carry `index`.
    """

    def _seen(self, means: Tensor, batch: Mapping[str, Tensor]) -> None:
        self._add_rows(batch, means)

    def compute(self) -> dict[str, Any]:
        """Return the figures, and `details`."""
        return {**super().compute(), "details": {"images": self._images()}}


class Normals(DenseTask):
    """Predict unit vectors: (N, 3, H, W) against `normals` (N, 3, H, W), ranked by the mean angle between them.

    The axes are those of the data; the sample rooms' and derived ones are x to the right, y up, z towards the camera.

    Args:
        loss: See `NORMALS_LOSSES`.
        protocol: Which region the metric looks at; the loss looks at the whole frame.
    """

    name = "normals"
    out_channels = 3
    fields = ("normals",)
    headline = "mean_error"
    higher_is_better = False
    regression = True
    protocol: NormalsProtocol

    def __init__(self, loss: NormalsLoss = l1, protocol: NormalsProtocol = NORMALS_PROTOCOLS["full"]) -> None:
        self.protocol = protocol
        self._loss = loss

    def head(self) -> nn.Module:
        """Return a new `UnitVectors`."""
        return UnitVectors()

    def loss(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of vectors (N, 3, H, W) over the pixels whose truth is neither 0 nor infinite nor NaN."""
        check_maps(prediction, batch["normals"][:, 0], 3, same_size=True)
        with torch.autocast(prediction.device.type, enabled=False):
            wide = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
            truth, valid = _prepared(batch["normals"].to(wide.dtype))
            return self._loss(wide, truth, valid)

    def mirrored(self, prediction: Tensor) -> Tensor:
        """Return vectors (N, 3, H, W) as a mirror shows them: in their new places, with x to the other side."""
        return prediction.flip(-1) * prediction.new_tensor([-1, 1, 1]).view(3, 1, 1)

    def averaged(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the middle direction of two unit vectors; of opposite ones 0, which is 90 degrees off."""
        return F.normalize(one + other, dim=1, eps=1e-6)

    def distillation(self, prediction: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
        """Return the mean of 1 - cos; there is no temperature of directions."""
        return direction_distillation(prediction, F.normalize(resized_like(teacher, prediction), dim=1, eps=1e-6))

    def metrics(self) -> NormalsMetrics:
        """Return a new `NormalsMetrics` under the task's protocol."""
        return NormalsMetrics(self.protocol)

    def detailed_metrics(self) -> DetailedNormalsMetrics:
        """Return a new metric of the same figures, with each image's."""
        return DetailedNormalsMetrics(self.protocol)

    def pictures(self, prediction: Tensor, sample: Mapping[str, Tensor]) -> list[Picture]:
        """Return truth and prediction as colours, and the angle between them."""
        truth, valid = _prepared(sample["normals"][None])
        resized = F.interpolate(prediction, truth.shape[2:], mode="bilinear", align_corners=False)
        shown, predicted = (F.normalize(x, dim=1)[0].permute(1, 2, 0).numpy() for x in (truth, resized))
        return normal_pictures(shown, predicted, angles(resized, truth)[0].numpy(), valid[0].numpy())


TASKS.register("normals")(Normals)
