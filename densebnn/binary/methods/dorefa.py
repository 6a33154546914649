"""DoReFa-Net with weights of one bit, and activations of one or two."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from densebnn.binary.activations import ActivationBinarizer
from densebnn.binary.bits import Bits
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant
from densebnn.binary.surrogates import Clip, Identity
from densebnn.binary.weights import WeightBinarizer

__all__ = ["LayerScaledSign", "UnitLevels", "UnitStep", "dorefa"]


class LayerScaledSign(WeightBinarizer):
    """sign(W) scaled by the mean |W| of the whole layer; the gradient of the result is that of W, as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.surrogate = Identity()

    def forward(self, weight: Tensor) -> Bits:
        """Return sign(W) with scale mean|W| of shape (1, 1, 1, 1)."""
        scale = weight.detach().abs().mean((0, 1, 2, 3), keepdim=True)
        return Bits(self.surrogate(weight), scale, scale_gradient=False)


class UnitStep(ActivationBinarizer):
    """1 where x >= 0.5, else 0: the quantizer of clip(x, 0, 1) at one bit, with slope 1 for 0 <= x <= 1."""

    def __init__(self) -> None:
        super().__init__()
        self.surrogate = Clip(0.5, inclusive=True)

    def forward(self, x: Tensor) -> Bits:
        """Return 0.5 · sign(x - 0.5) + 0.5."""
        half = x.new_full((), 0.5)
        return Bits(self.surrogate(x - 0.5), half, half, scale_gradient=False)


class _Levels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, steps: int) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(0, 1).mul_(steps).round_().mul_(2 / steps).sub_(1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradient * x.ge(0) * x.le(1), None


class _Quantizer(Clip):
    """clip(x + 0.5, 0, 1) rounded to 2^bits - 1 equal steps and spread over ±1; slope 1 for |x| <= 0.5."""

    def __init__(self, bits: int) -> None:
        super().__init__(0.5, inclusive=True)
        self.steps = 2**bits - 1

    def forward(self, x: Tensor) -> Tensor:
        return _Levels.apply(x + 0.5, self.steps)


class UnitLevels(ActivationBinarizer):
    """clip(x, 0, 1) rounded to 2^bits - 1 equal steps, half to even, with slope 1 for 0 <= x <= 1.

    The `sign` of its `Bits` has 2^bits levels from -1 to +1, so it is no sign, and its layer not binary.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.dynamic = f"not binary: its activations have {bits} bits"
        self.surrogate = _Quantizer(bits)

    def forward(self, x: Tensor) -> Bits:
        """Return 0.5 · level + 0.5."""
        half = x.new_full((), 0.5)
        return Bits(self.surrogate(x - 0.5), half, half, scale_gradient=False)


@METHODS.register("dorefa")
def dorefa(variant: Variant) -> Method:
    """DoReFa-Net (Zhou et al., arXiv:1606.06160, 2016) with 1-bit weights and real-valued gradients.

    Weights: sign(W) · mean|W| of the whole layer, identity straight-through, the scale outside the gradient.
    Activations: clip(x, 0, 1) rounded to equal steps, slope 1 for 0 <= x <= 1. Quantized gradients are not here.

    Block: in `dorefa_alexnet` convolution, batch norm, without skips, as released. The residual layout, batch norm,
    convolution, a skip around each pair, and its shortcut (average pooling and a real-valued 1x1 convolution) are ours.

    Variants: `as_paper` has activations of one bit, {0, 1}, of the bit widths that the paper goes through; it is static
    at inference; at x = 0.5 ours is 1, where the release rounds half to even. `as_released` has activations of two
    bits, {0, 1/3, 2/3, 1}, as the AlexNet whose weights larq's zoo publishes: they are not binary, so the layers count
    as FLOPs, and cannot be frozen to bits.
    """
    return Method(
        name="dorefa",
        weight=lambda conv: LayerScaledSign(),
        activation=lambda conv: UnitLevels(2) if variant == "as_released" else UnitStep(),
        block=BlockSpec(order="NC+", convs_per_skip=2, shortcut="pool_conv", norm_before_classifier=True),
    )
