"""The depth figures of a protocol, per image and pooled, from float64 sums."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from densebnn.tasks.base import TaskMetrics, check_maps, require_finite
from densebnn.tasks.protocols import DepthProtocol

__all__ = ["DEPTH_FIGURES", "DepthMetrics", "error_sums", "figures"]

DEPTH_FIGURES = ("rmse", "rmse_log", "abs_rel", "sq_rel", "log10", "silog", "delta1", "delta2", "delta3")
"""The figures in the order of `figures`: metres, ln, ratio, metres, log10, 100 x ln, and three shares."""

_LOG_FLOOR = 1e-9
"""Metres; the floor of a prediction in logarithms and ratios, as in the multi-task literature's code."""

_SHIFT = 2.7
"""Metres, about the mean of an indoor scene: sums around it keep the variance of the truth from cancelling."""


def error_sums(prediction: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Return the sums of the pixel errors of each image, float64 (N, 9).

    The columns, with e = p - g and d = ln p - ln g: e^2, d^2, |e| / g, e^2 / g, |d|, d, and max(p/g, g/p) < 1.25^k, k
    = 1..3.

    Args:
        prediction: float64 (N, H, W), metres, finite.
        truth: float64 (N, H, W), metres, positive where valid.
        valid: bool (N, H, W).
    """
    g = torch.where(valid, truth, 1.0)
    p = torch.where(valid, prediction, 1.0)  # equal to g, so that every error is exactly 0 there
    e = p - g
    positive = p.clamp_min(_LOG_FLOOR)
    d = positive.log() - g.log()
    ratio = torch.where(valid, torch.maximum(positive / g, g / positive), math.inf)
    errors = [e.square(), d.square(), e.abs() / g, e.square() / g, d.abs(), d]
    errors += [(ratio < 1.25**k).double() for k in (1, 2, 3)]
    return torch.stack([error.flatten(1).sum(dim=1) for error in errors], dim=1)


def figures(sums: Tensor, count: Tensor) -> Tensor:
    """Return the figures (..., 9), ordered as `DEPTH_FIGURES`, of `error_sums` (..., 9) over `count` (...) pixels.

    RMSE sqrt(mean e^2), RMSElog sqrt(mean d^2), AbsRel mean |e|/g, SqRel mean e^2/g, log10 mean |d|/ln 10,
    SILog 100 sqrt(mean d^2 - (mean d)^2), delta_k the share of pixels. Where `count` is 0 they are 0.
    """
    e2, d2, abs_rel, sq_rel, d_abs, d, *deltas = (sums / count.clamp_min(1).unsqueeze(-1)).unbind(dim=-1)
    silog = 100 * (d2 - d.square()).clamp_min(0).sqrt()
    return torch.stack([e2.sqrt(), d2.sqrt(), abs_rel, sq_rel, d_abs / math.log(10), silog, *deltas], dim=-1)


class DepthMetrics(TaskMetrics):
    """Depth errors under a protocol.

    `compute` returns the nine `DEPTH_FIGURES` by the protocol's own averaging, and beside them

    - `rmse_image`, `rmse_pixel`: the RMSE by both averages; the second is at least the first when images weigh the
      same.
    - `rmse_constant`: the pooled RMSE of the best constant prediction on exactly these pixels, which is their
      standard deviation.
    - `rmse_over_constant`: `rmse_pixel / rmse_constant`; below 1 the model knows more than one number.
    - `valid_pixels`, `images`: pixels scored, images seen; `images_without_truth`: those of them that were skipped
      because no pixel was valid.

    A figure that is undefined (no valid pixel; a constant truth for the ratio) is None. All sums are float64, formed
    per image, so the batch size and the number of processes do not matter.

    Args:
        protocol: Which truth, region and pixels count and how they are averaged.
    """

    pixel_sums: Tensor
    image_sums: Tensor
    truth_sums: Tensor
    valid_pixels: Tensor
    images: Tensor
    images_without_truth: Tensor

    def __init__(self, protocol: DepthProtocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.fields = (protocol.ground_truth,)
        for name, size in (("pixel_sums", 9), ("image_sums", 9), ("truth_sums", 2)):
            self.add_state(name, torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("valid_pixels", "images", "images_without_truth"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add a batch.

        Args:
            prediction: (N, 1, H', W') metres; another size than the truth's is resized to it bilinearly.
            batch: Holds the protocol's truth, (N, H, W) metres; zeros, NaN and infinities are missing values.

        Raises:
            UserError: The prediction holds NaN or infinite values.
        """
        p, g, valid = self._scored(prediction, batch)
        self._add(p, g, valid, batch)

    def _scored(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return prediction and truth, float64, in the region that counts, and which of its pixels do; (N, H, W)."""
        truth = batch[self.protocol.ground_truth]
        check_maps(prediction, truth, 1, same_size=False)
        require_finite(prediction, batch)
        prediction = prediction.double()
        if prediction.shape[2:] != truth.shape[1:]:
            prediction = F.interpolate(prediction, size=truth.shape[1:], mode="bilinear", align_corners=False)
        rows, columns = self.protocol.region(truth.shape[1], truth.shape[2])
        valid = self._valid(truth[:, rows, columns])  # before .double(): 1e-3 in float32 is a little above 1e-3
        return self._clamped(prediction[:, 0, rows, columns]), truth[:, rows, columns].double(), valid

    def _add(self, p: Tensor, g: Tensor, valid: Tensor, batch: Mapping[str, Tensor]) -> None:
        sums = error_sums(p, g, valid)
        count = valid.flatten(1).sum(dim=1)
        shifted = torch.where(valid, g - _SHIFT, 0.0).flatten(1)
        self.pixel_sums += sums.sum(dim=0)
        self.image_sums += figures(sums, count).sum(dim=0)
        self.truth_sums += torch.stack([shifted.sum(dim=1).sum(), shifted.square().sum(dim=1).sum()])
        self.valid_pixels += count.sum()
        self.images += len(count)
        self.images_without_truth += (count == 0).sum()

    def compute(self) -> dict[str, Any]:
        """Return the figures described above."""
        pixels, images, skipped = (int(n) for n in (self.valid_pixels, self.images, self.images_without_truth))
        counts = {"valid_pixels": pixels, "images": images, "images_without_truth": skipped}
        if pixels == 0:
            undefined = ("rmse_image", "rmse_pixel", "rmse_constant", "rmse_over_constant")
            return {**dict.fromkeys((*DEPTH_FIGURES, *undefined)), **counts}
        pooled = figures(self.pixel_sums, self.valid_pixels)
        per_image = self.image_sums / (images - skipped)
        chosen = per_image if self.protocol.averaging == "image" else pooled
        constant = self._spread()
        return {
            **dict(zip(DEPTH_FIGURES, chosen.tolist(), strict=True)),
            "rmse_image": per_image[0].item(),
            "rmse_pixel": pooled[0].item(),
            "rmse_constant": constant,
            "rmse_over_constant": pooled[0].item() / constant if constant else None,
            **counts,
        }

    def _clamped(self, prediction: Tensor) -> Tensor:
        low, high = self.protocol.clamp
        return prediction if low is None and high is None else prediction.clamp(low, high)

    def _valid(self, truth: Tensor) -> Tensor:
        below = truth <= self.protocol.max_depth if self.protocol.include_max else truth < self.protocol.max_depth
        return (truth > self.protocol.min_depth) & below & torch.isfinite(truth)

    def _spread(self) -> float:
        """The population standard deviation of the truth over all valid pixels, in metres."""
        first, second = (self.truth_sums / self.valid_pixels).tolist()
        variance = second - first * first
        # A spread below the resolution of float32 depths is rounding, not structure: a ratio to it would mean nothing.
        return math.sqrt(variance) if variance > 1e-14 * (first + _SHIFT) ** 2 else 0.0
