"""Weight binarizers: latent real-valued W of shape (C_out, C_in/groups, k_h, k_w) -> Bits of the same shape.

A weight binarizer may also listen to training events, with the weight at hand: `weight_grads_ready(weight)` after the
gradients are there and before the optimizer's step, `weight_stepped(weight)` after it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from densebnn.binary.bits import Bits
from densebnn.binary.surrogates import Identity, Surrogate

__all__ = ["MeanAbsSign", "StandardizedSign", "WeightBinarizer", "XNORSign"]

_FILTER = (1, 2, 3)


class WeightBinarizer(nn.Module, ABC):
    """Latent weight -> `Bits`; subclasses define `forward`."""

    dynamic: str | None = None
    """Why a layer that uses it cannot be frozen to bits for inference; None if it can."""

    @abstractmethod
    def forward(self, weight: Tensor) -> Bits:
        """Binarize `weight` of shape (C_out, C_in/groups, k_h, k_w)."""


class MeanAbsSign(WeightBinarizer):
    """sign(W) scaled by the mean |W| of each filter; neither the scale nor its factor is in the gradient.

    Bi-Real Net (Liu et al., ECCV 2018) and ReActNet (Liu et al., ECCV 2020), as released.
    """

    def __init__(self, surrogate: Surrogate) -> None:
        super().__init__()
        self.surrogate = surrogate

    def forward(self, weight: Tensor) -> Bits:
        """Return sign(W) with scale mean|W| of shape (C_out, 1, 1, 1)."""
        scale = weight.detach().abs().mean(_FILTER, keepdim=True)
        return Bits(self.surrogate(weight), scale, scale_gradient=False)


class StandardizedSign(WeightBinarizer):
    """Sign of the filter-wise standardised weight, with a power-of-two scale (Qin et al., "IR-Net", CVPR 2020).

    The gradient flows through the standardisation and is multiplied by the scale, which itself is a constant.
    """

    def __init__(self, surrogate: Surrogate) -> None:
        super().__init__()
        self.surrogate = surrogate

    def forward(self, weight: Tensor) -> Bits:
        """Return sign(Ŵ) with scale 2^round(log2 mean|Ŵ|), Ŵ = (W - mean) / std, the std of each filter unbiased."""
        centred = weight - weight.mean(_FILTER, keepdim=True)
        standardized = centred / centred.std(_FILTER, keepdim=True)
        mean_abs = standardized.detach().abs().mean(_FILTER, keepdim=True)
        return Bits(self.surrogate(standardized), torch.exp2(mean_abs.log2().round()))


class XNORSign(WeightBinarizer):
    """sign(W) scaled by mean |W|, whose gradient is rescaled after the backward pass (Rastegari et al., ECCV 2016).

    As in the paper: dL/dW = dL/dW̃ · (1/n + mean|W| · 1[|W| < 1]), n the number of weights of a filter.
    As released (`centre=True`): after every step W loses its mean over the input channels and is clamped to ±1, and the
    factor is further multiplied by (1 - 1/C_in) · n, the n being the release's for SGD.
    """

    def __init__(self, *, centre: bool) -> None:
        super().__init__()
        self.surrogate = Identity()
        self.centre = centre

    def forward(self, weight: Tensor) -> Bits:
        """Return sign(W) with scale mean|W| of shape (C_out, 1, 1, 1)."""
        return Bits(self.surrogate(weight), self._scale(weight), scale_gradient=False)

    @torch.no_grad()
    def weight_grads_ready(self, weight: Tensor) -> None:
        """Multiply the weight's gradient by the factor above."""
        if weight.grad is None:
            return
        size = weight[0].numel()
        factor = self._scale(weight) * weight.abs().lt(1) + 1 / size
        if self.centre:
            factor = factor * (1 - 1 / weight.shape[1]) * size
        weight.grad.mul_(factor)

    @torch.no_grad()
    def weight_stepped(self, weight: Tensor) -> None:
        """Centre over the input channels and clamp to ±1, as the release does before each forward pass."""
        if self.centre:
            weight.sub_(weight.mean(1, keepdim=True)).clamp_(-1, 1)

    @staticmethod
    def _scale(weight: Tensor) -> Tensor:
        return weight.detach().abs().mean(_FILTER, keepdim=True)
