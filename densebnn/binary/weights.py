"""Weight binarizers: latent real-valued W of shape (C_out, C_in/groups, k_h, k_w) -> Bits of the same shape.

A weight binarizer may also listen to training events, with the weight at hand: `weight_grads_ready(weight)` after the
gradients are there and before the optimizer's step, `weight_stepped(weight)` after it, `weight_refresh(weight)` at the
start of each epoch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from densebnn.binary.bits import Bits
from densebnn.binary.surrogates import Clip, Identity, Surrogate

__all__ = ["ClampedSign", "MeanAbsSign", "PlainSign", "StandardizedSign", "WeightBinarizer", "XNORSign", "balanced"]

_FILTER = (1, 2, 3)


class WeightBinarizer(nn.Module, ABC):
    """Latent weight -> `Bits`; subclasses define `forward`."""

    dynamic: str | None = None
    """Why a layer that uses it cannot be frozen to bits for inference; None if it can."""

    unpacked: tuple[str, ...] = ()
    """Names of buffers that a network packed to bits goes without; `restore` fills them."""

    @abstractmethod
    def forward(self, weight: Tensor) -> Bits:
        """Binarize `weight` of shape (C_out, C_in/groups, k_h, k_w)."""

    @torch.no_grad()
    def restore(self, bits: Bits) -> Tensor:
        """Return a latent weight from which `forward` gives `bits` again, and fill the buffers named in `unpacked`.

        Signs come out the same, scale and shift to rounding. Here: scale · sign + shift.
        """
        return bits.value()


def balanced(sign: Tensor, direction: Tensor | None = None) -> Tensor:
    """Return numbers of the signs given, ±1 in the shape of a weight, orthogonal to `direction` in each filter.

    Each filter takes two magnitudes, one where sign and direction agree and its inverse elsewhere. Without a direction
    (which stands for ones) the filters have mean 0 and (biased) variance 1.
    """
    along = sign if direction is None else sign * direction
    ratio = along.clamp(max=0).sum(_FILTER, keepdim=True).abs() / along.clamp(min=0).sum(_FILTER, keepdim=True)
    return sign * torch.where(along > 0, ratio.sqrt(), ratio.rsqrt())


class MeanAbsSign(WeightBinarizer):
    """sign(W) scaled by the mean |W| of each filter, which is a constant for the gradient.

    Bi-Real Net (Liu et al., ECCV 2018) and ReActNet (Liu et al., ECCV 2020), as released.

    Args:
        surrogate: gives the slope at W.
        scale_gradient: whether the gradient is multiplied by the scale; those two releases do not.
    """

    def __init__(self, surrogate: Surrogate, *, scale_gradient: bool = False) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.scale_gradient = scale_gradient

    def forward(self, weight: Tensor) -> Bits:
        """Return sign(W) with scale mean|W| of shape (C_out, 1, 1, 1)."""
        scale = weight.detach().abs().mean(_FILTER, keepdim=True)
        return Bits(self.surrogate(weight), scale, scale_gradient=self.scale_gradient)


class PlainSign(WeightBinarizer):
    """sign(W), without a scale."""

    def __init__(self, surrogate: Surrogate) -> None:
        super().__init__()
        self.surrogate = surrogate

    def forward(self, weight: Tensor) -> Bits:
        """Return sign(W)."""
        return Bits(self.surrogate(weight))


class ClampedSign(PlainSign):
    """sign(W), without a scale; W is clamped to ±1 after each step (BNN, Real-to-Binary).

    The slope is 1 inside [-1, 1], bounds included, or a weight that was clamped would never move again.
    """

    def __init__(self) -> None:
        super().__init__(Clip(inclusive=True))

    @torch.no_grad()
    def weight_stepped(self, weight: Tensor) -> None:
        """Clamp the latent weight to ±1."""
        weight.clamp_(-1, 1)


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

    @torch.no_grad()
    def restore(self, bits: Bits) -> Tensor:
        """Return centred filters whose mean|Ŵ| is the scale, or as large as it can be with these signs.

        Weights of either sign have the same sum. A share of it is in the first weight of the sign and the rest is even
        among all: the larger the share, the larger the standard deviation beside a mean magnitude that stays at 1.
        """
        positive = bits.sign > 0
        size = bits.sign[0].numel()
        counts = [mask.sum(_FILTER, keepdim=True).double() for mask in (positive, ~positive)]
        even = 1 / counts[0] + 1 / counts[1]
        scale = torch.ones_like(even) if bits.scale is None else bits.scale.double()
        share = (((size - 1) * (2 / size / scale).square() - even) / (2 - even)).nan_to_num().clamp(0, 0.9).sqrt()
        latent = torch.zeros_like(bits.sign, dtype=torch.float64)
        for mask, count in zip((positive, ~positive), counts, strict=True):
            first = mask & (mask.flatten(1).cumsum(1).view_as(mask) == 1)
            latent += mask * (1 - share) / count + first * share
        return (latent * bits.sign * size / 2).to(bits.sign.dtype)


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
