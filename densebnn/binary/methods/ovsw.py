"""OvSW."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from densebnn.binary.activations import ImageStdSign
from densebnn.binary.bits import Bits
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant
from densebnn.binary.surrogates import Identity, Poly
from densebnn.binary.weights import WeightBinarizer

__all__ = ["AwakenedSign", "ovsw"]

_FILTER = (1, 2, 3)
_EPS = 1e-5
_MOMENTUM = 0.999
_SILENT = 1e-4


class AwakenedSign(WeightBinarizer):
    """sign(W) with a constant scale per filter, and gradients that wake silent weights (Xiang et al., ECCV 2024).

    The scale is mean|Ŵ|, Ŵ = (W - mean)/√(var + 1e-5) of each filter; it is not differentiated, but multiplies the
    gradient. Before each step of the optimizer, in this order:

    - Adaptive gradient scaling: where the norms of gradient and weight of a filter have a ratio below `delta`, the
      gradient grows until they have that ratio (norms are clamped from below, at 1e-6 and 1e-3).
    - Silence awareness decaying: `tracker`, a running mean (momentum 0.999) of whether a weight's sign flipped, is
      updated; where it is below 1e-4, `decay`·W is added to the gradient.

    Args:
        weight: the latent weight, for its shape.
        delta: the least ratio of norms.
        decay: the weight decay of silent weights.
    """

    unpacked = ("sign_prev", "tracker")
    sign_prev: Tensor
    tracker: Tensor

    def __init__(self, weight: Tensor, *, delta: float, decay: float) -> None:
        super().__init__()
        self.surrogate = Identity()
        self.delta, self.decay = delta, decay
        self.register_buffer("sign_prev", torch.zeros_like(weight, dtype=torch.int8))  # 0: no step seen yet
        self.register_buffer("tracker", torch.zeros_like(weight, requires_grad=False))

    def forward(self, weight: Tensor) -> Bits:
        """Return sign(W) with scale mean|Ŵ| of shape (C_out, 1, 1, 1)."""
        latent = weight.detach()
        std = (latent.var(_FILTER, keepdim=True) + _EPS).sqrt()
        scale = ((latent - latent.mean(_FILTER, keepdim=True)) / std).abs().mean(_FILTER, keepdim=True)
        return Bits(self.surrogate(weight), scale)

    @torch.no_grad()
    def weight_grads_ready(self, weight: Tensor) -> None:
        """Scale the gradient, track flips, and add the decay of silent weights."""
        if weight.grad is None:
            return
        size = torch.linalg.vector_norm(weight, dim=_FILTER, keepdim=True).clamp_(min=1e-3)
        steepness = torch.linalg.vector_norm(weight.grad, dim=_FILTER, keepdim=True).clamp_(min=1e-6)
        weight.grad.mul_(torch.where(steepness / size < self.delta, self.delta * size / steepness, 1.0))

        sign = torch.where(weight >= 0, 1, -1).to(torch.int8)
        flipped = self.sign_prev * sign < 0
        self.tracker.mul_(_MOMENTUM).add_(flipped, alpha=1 - _MOMENTUM)
        self.sign_prev.copy_(sign)
        weight.grad.add_(weight * (self.tracker < _SILENT), alpha=self.decay)

    @torch.no_grad()
    def restore(self, bits: Bits) -> Tensor:
        """Return filters of these signs and of the deviation at which mean|Ŵ| is the scale; forget all flips.

        At equal magnitudes mean|W - mean|/std is the larger, the more even the signs are; the smaller the filter, the
        more the 1e-5 beside its variance lowers mean|Ŵ|. Where the signs are too uneven, one half of the filter keeps
        its magnitude and the other is put next to zero, which has the largest ratio of all.
        """
        self.sign_prev.zero_()
        self.tracker.zero_()
        sign = bits.sign.double()
        scale = bits.sign.new_ones(()) if bits.scale is None else bits.scale.double()
        common = sign == torch.where(sign.sum(_FILTER, keepdim=True) >= 0, 1, -1)
        half = common & (common.flatten(1).cumsum(1).view_as(common) <= sign[0].numel() // 2)
        even = sign / sign.std(_FILTER, keepdim=True)
        apart = sign * torch.where(half, 1.0, 1e-4)
        latent = torch.where(_ratio(sign) > scale, even, apart / apart.std(_FILTER, keepdim=True))
        std = scale * (_EPS / (_ratio(latent).square() - scale.square()).clamp(min=1e-9)).sqrt()
        return (latent * std).to(bits.sign.dtype)


def _ratio(weight: Tensor) -> Tensor:
    """Return mean|W - mean|/std of each filter."""
    centred = weight - weight.mean(_FILTER, keepdim=True)
    return centred.abs().mean(_FILTER, keepdim=True) / centred.std(_FILTER, keepdim=True)


@METHODS.register("ovsw")
def ovsw(variant: Variant, *, delta: float = 0.01, decay: float = 2e-5) -> Method:
    """OvSW (Xiang et al., "Overcoming Silent Weights for Accurate Binary Neural Networks", ECCV 2024).

    Weights: sign(W), identity straight-through, no centring, times the mean magnitude of the standardised filter. After
    each backward pass small gradients are scaled up (AGS), and weights whose sign has not flipped for long are decayed
    (SAD). Activations: sign with slope max(0, 2 - 2|x|); in training x is divided by its standard deviation over each
    image, without gradient through it. Static at inference.

    Block: convolution, batch norm, skip, hardtanh, a skip around every convolution, strided real-valued 1x1 shortcuts,
    batch norms before skips starting near 0; average pooling and zero channels as shortcut in `resnet20`; a skip around
    each pair and binary 1x1 shortcuts in `resnet18_cifar`. Batch norm before the classifier.

    `delta` and `decay` are by default the release's for ImageNet, 0.01 and 2e-5; its ResNet-20 on CIFAR has 0.04 and
    9e-4, which `ovsw("as_paper", delta=0.04, decay=9e-4)` gives. Both variants follow the release; where the paper
    differs was not checked. The optimizer's own weight decay comes on top.
    """
    block = BlockSpec(
        order="CN+P",
        nonlinearity="hardtanh",
        shortcut="strided_conv",
        norm_gamma=1e-8,
        stem_nonlinearity="hardtanh",
        norm_before_classifier=True,
    )
    return Method(
        name="ovsw",
        weight=lambda conv: AwakenedSign(conv.weight, delta=delta, decay=decay),
        activation=lambda conv: ImageStdSign(Poly(), through_std=False),
        block=block,
        blocks={
            "resnet20": replace(block, shortcut="pool_pad", norm_gamma=1.0),
            "resnet18_cifar": BlockSpec(
                order="CN+P",
                convs_per_skip=2,
                nonlinearity="hardtanh",
                shortcut="binary_conv",
                norm_before_classifier=True,
            ),
        },
    )
