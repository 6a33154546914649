"""Heads that turn raw outputs into metres: one bounded number, or an expectation over bins of depth."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from densebnn.registry import Registry, UserError

__all__ = ["DEPTH_HEADS", "BinnedDepth", "BoundedDepth", "DepthHead", "bin_edges"]


class DepthHead(NamedTuple):
    """A head by name: the channels that it takes of `bins`, and its maker from min, max, mean depth and `bins`."""

    channels: Callable[[int], int]
    make: Callable[[float, float, float, int], nn.Module]


DEPTH_HEADS: Registry[DepthHead] = Registry("depth head")
"""`bounded`: a sigmoid between the smallest and the largest depth. `bins_uniform`, `bins_log`: an expectation over bins
of equal width in metres (uniform discretisation) or in ln metres (spacing-increasing, DORN, Fu et al. 2018)."""


def check_range(min_depth: float, max_depth: float, mean_depth: float) -> None:
    """Refuse depths in metres that are not 0 < min < mean < max < infinity: raises `UserError`."""
    if not 0 < min_depth < mean_depth < max_depth < math.inf:
        raise UserError(
            f"min_depth {min_depth:g}, mean_depth {mean_depth:g}, max_depth {max_depth:g}: "
            "these metres must be positive, finite and in increasing order"
        )


class BoundedDepth(nn.Module):
    """Map raw outputs x to metres: min + (max - min) sigmoid(x + logit((mean - min) / (max - min))).

    A raw output of 0 is the mean, so an untrained network starts at the best constant prediction instead of far from
    it. The range is kept in buffers: a checkpoint carries its own. Computed in float32 also under autocast, whose
    bfloat16 would round 4 m to steps of 3 cm.

    Args:
        min_depth: Metres, the smallest prediction.
        max_depth: Metres, the largest prediction.
        mean_depth: Metres, the prediction for a raw output of 0.

    Raises:
        UserError: Unless 0 < min_depth < mean_depth < max_depth < infinity.
    """

    lowest: Tensor
    span: Tensor
    offset: Tensor

    def __init__(self, min_depth: float, max_depth: float, mean_depth: float) -> None:
        super().__init__()
        check_range(min_depth, max_depth, mean_depth)
        share = (mean_depth - min_depth) / (max_depth - min_depth)
        self.register_buffer("lowest", torch.tensor(float(min_depth)))
        self.register_buffer("span", torch.tensor(float(max_depth - min_depth)))
        self.register_buffer("offset", torch.tensor(math.log(share / (1 - share))))

    def forward(self, x: Tensor) -> Tensor:
        """Return metres, in the shape of `x`."""
        return self.lowest + self.span * torch.sigmoid(x.float() + self.offset)


def bin_edges(min_depth: float, max_depth: float, bins: int, *, log: bool) -> Tensor:
    """Return the bins + 1 borders of bins from `min_depth` to `max_depth`, float64, in metres.

    Uniform: a + k (b - a) / K. Spacing-increasing: exp(ln a + k ln(b / a) / K).
    """
    if log:
        return torch.linspace(math.log(min_depth), math.log(max_depth), bins + 1, dtype=torch.float64).exp()
    return torch.linspace(min_depth, max_depth, bins + 1, dtype=torch.float64)


class BinnedDepth(nn.Module):
    """Map raw outputs of K bins to metres: the sum over k of softmax_k(x + offset) c_k, c_k the middle of bin k.

    Classification as regression: the expectation keeps the prediction continuous (Li et al. 2018; AdaBins, Bhat et al.
    2021, with learned bins). Raw outputs of 0 give the mean depth: of all distributions over the bins with that mean,
    the offset is the one of largest entropy, a multiple of c_k. Bins and offset are buffers. Computed in float32 also
    under autocast.

    Args:
        min_depth: Metres, where the first bin begins.
        max_depth: Metres, where the last bin ends.
        mean_depth: Metres, the prediction for raw outputs of 0.
        bins: K.
        log: Whether the bins are equally wide in ln metres instead of metres.

    Raises:
        UserError: Unless 0 < min_depth < mean_depth < max_depth < infinity and there are at least 2 bins between whose
            middles the mean lies.
    """

    centres: Tensor
    offset: Tensor

    def __init__(self, min_depth: float, max_depth: float, mean_depth: float, bins: int, *, log: bool) -> None:
        super().__init__()
        check_range(min_depth, max_depth, mean_depth)
        if bins < 2:
            raise UserError(f"bins is {bins}; a depth head needs at least 2")
        edges = bin_edges(min_depth, max_depth, bins, log=log)
        centres = (edges[1:] + edges[:-1]) / 2
        if not centres[0] < mean_depth < centres[-1]:
            raise UserError(
                f"mean_depth {mean_depth:g} m is not between the middles of the first and the last of {bins} bins, "
                f"{centres[0]:.3g} and {centres[-1]:.3g} m; take more bins"
            )
        self.register_buffer("centres", centres.float())
        self.register_buffer("offset", _tilt(centres, mean_depth).float())

    def forward(self, x: Tensor) -> Tensor:
        """(N, K, H, W) -> metres (N, 1, H, W)."""
        share = (x.float() + self.offset.view(1, -1, 1, 1)).softmax(dim=1)
        return (share * self.centres.view(1, -1, 1, 1)).sum(dim=1, keepdim=True)


def _tilt(centres: Tensor, mean: float) -> Tensor:
    """Return t c_k with the t for which the expectation of c under softmax(t c) is `mean`, found by bisection."""
    low, high = -1e4 / float(centres[-1]), 1e4 / float(centres[-1])
    for _ in range(200):
        middle = (low + high) / 2
        if float(((middle * centres).softmax(0) * centres).sum()) < mean:
            low = middle
        else:
            high = middle
    return (low + high) / 2 * centres


DEPTH_HEADS["bounded"] = DepthHead(lambda bins: 1, lambda low, high, mean, bins: BoundedDepth(low, high, mean))
DEPTH_HEADS["bins_uniform"] = DepthHead(
    lambda bins: bins, lambda low, high, mean, bins: BinnedDepth(low, high, mean, bins, log=False)
)
DEPTH_HEADS["bins_log"] = DepthHead(
    lambda bins: bins, lambda low, high, mean, bins: BinnedDepth(low, high, mean, bins, log=True)
)
