"""SiMaN."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from densebnn.binary.activations import ImageNormSign
from densebnn.binary.bits import Bits
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant
from densebnn.binary.scales import LearnedScale
from densebnn.binary.surrogates import Poly
from densebnn.binary.weights import WeightBinarizer

__all__ = ["MagnitudeSign", "siman"]

_FILTER = (1, 2, 3)


class _Ranked(torch.autograd.Function):
    """The bits forward; the gradient of |Ŵ| backward."""

    @staticmethod
    def forward(ctx: Any, standardized: Tensor, bits: Tensor) -> Tensor:
        ctx.save_for_backward(standardized)
        return bits.to(standardized.dtype, copy=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (standardized,) = ctx.saved_tensors
        return gradient * standardized.sign(), None


class MagnitudeSign(WeightBinarizer):
    """+1 for the half of each filter with the largest |Ŵ|, -1 for the rest; Ŵ is W standardised.

    The bits are recomputed in each training forward pass and kept in a buffer, from which evaluation takes them. After
    each step W loses its filters' means, and |W| is clamped to two percentiles of the layer, p and 100 - p, with p
    falling from `percent` to 0 over training. (The release does so before each forward pass, also in evaluation.)

    Args:
        weight: the latent weight, for the first bits.
        percent: p at the start.
    """

    unpacked = ("bits",)
    bits: Tensor
    percent: Tensor

    def __init__(self, weight: Tensor, percent: float = 15.0) -> None:
        super().__init__()
        self.first_percent = percent
        self.register_buffer("percent", torch.tensor(percent))
        self.register_buffer("bits", _ranks(weight.detach() - weight.detach().mean(_FILTER, keepdim=True)))

    def on_progress(self, progress: float) -> None:
        """Set p for `progress` in [0, 1]."""
        self.percent.fill_(self.first_percent * (1 - progress))

    def forward(self, weight: Tensor) -> Bits:
        """Return the bits; their gradient is that of |Ŵ|, and flows through the standardisation."""
        centred = weight - weight.mean(_FILTER, keepdim=True)
        standardized = centred / (centred.var(_FILTER, keepdim=True) + 1e-5).sqrt()
        if self.training:
            self.bits.copy_(_ranks(standardized.detach()))
        return Bits(_Ranked.apply(standardized, self.bits))

    @torch.no_grad()
    def restore(self, bits: Bits) -> Tensor:
        """Return magnitudes 3 for +1 and 1 for -1, their signs alternating so that the mean hardly moves them."""
        self.bits.copy_(bits.sign)
        large = bits.sign.flatten(1) > 0
        turn = torch.where(large, large.cumsum(1), (~large).cumsum(1)) % 2
        return ((1 - 2 * turn) * torch.where(large, 3.0, 1.0)).view_as(bits.sign)

    @torch.no_grad()
    def weight_stepped(self, weight: Tensor) -> None:
        """Centre the filters, and clamp magnitudes to the percentiles."""
        centred = weight - weight.mean(_FILTER, keepdim=True)
        magnitude = centred.abs()
        low, high = (_percentile(magnitude.flatten(), percent) for percent in (self.percent, 100 - self.percent))
        weight.copy_(centred.sign() * magnitude.clamp(low, high))


def _ranks(centred: Tensor) -> Tensor:
    """Return ±1 as int8: whether a magnitude exceeds the (lower) median of its filter."""
    magnitude = centred.abs().flatten(1)
    median = _smallest(magnitude, (magnitude.shape[1] - 1) // 2).unsqueeze(1)
    return (magnitude > median).view_as(centred).to(torch.int8) * 2 - 1


def _percentile(values: Tensor, percent: Tensor) -> Tensor:
    """Return a percentile of a vector, linear between order statistics."""
    # torch.quantile refuses more than 2^24 values
    last = len(values) - 1
    position = float(percent) / 100 * last
    below = min(max(math.floor(position), 0), last)
    return torch.lerp(_smallest(values, below), _smallest(values, min(below + 1, last)), position - below)


def _smallest(values: Tensor, index: int) -> Tensor:
    """Return the element of that index in ascending order, along the last dimension."""
    # sorting takes five times as long on a CPU; elsewhere kthvalue has no deterministic form
    return values.kthvalue(index + 1).values if values.is_cpu else values.sort().values[..., index]


@METHODS.register("siman")
def siman(variant: Variant) -> Method:
    """SiMaN (Lin et al., "Sign-to-Magnitude Network Binarization", IEEE TPAMI 2023): bits rank magnitudes.

    Weights: +1 for the larger half of each filter's |Ŵ| (standardised), -1 for the rest; the gradient is that of |Ŵ|.
    Latent weights are centred and clamped to percentiles of the layer, 15 and 85 falling to 0 and 100. Activations:
    normalised by mean and variance of each image in training and evaluation, then sign with slope max(0, 2 - 2|x|); so
    the method is dynamic at inference. Output: a learned factor per channel that starts at mean|W|.

    Block: convolution, batch norm, skip, PReLU, a skip around every convolution; strided real-valued 1x1 shortcuts
    (parameter-free in `resnet20`), ReLU after the stem, batch norm before the classifier. In `resnet18_cifar` hardtanh,
    a skip around each pair and binary 1x1 shortcuts. No weight decay on binary convolutions belongs to the method.

    Both variants follow the release, whose bits are ±1; the paper's abstract speaks of {0, +1}, and whether the paper
    edits latent weights was not checked. Unlike the release, evaluation leaves them as they are.
    """
    block = BlockSpec(
        order="CN+P",
        nonlinearity="prelu",
        shortcut="strided_conv",
        stem_nonlinearity="relu",
        norm_before_classifier=True,
    )
    return Method(
        name="siman",
        weight=lambda conv: MagnitudeSign(conv.weight),
        activation=lambda conv: ImageNormSign(Poly(), eps=1e-5),
        scale=lambda conv: LearnedScale(conv.weight.abs().mean(_FILTER)),
        block=block,
        blocks={
            "resnet18": replace(block, norm_gamma=1e-8),
            "resnet34": replace(block, norm_gamma=1e-8),
            "resnet20": replace(block, shortcut="zero_pad"),
            "resnet18_cifar": BlockSpec(
                order="CN+P",
                convs_per_skip=2,
                nonlinearity="hardtanh",
                shortcut="binary_conv",
                norm_before_classifier=True,
            ),
        },
    )
