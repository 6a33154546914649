"""DoReFa-Net with one bit on each side."""

from __future__ import annotations

from torch import Tensor

from densebnn.binary.activations import ActivationBinarizer
from densebnn.binary.bits import Bits
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant
from densebnn.binary.surrogates import Clip, Identity
from densebnn.binary.weights import WeightBinarizer

__all__ = ["LayerScaledSign", "UnitStep", "dorefa"]


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


@METHODS.register("dorefa")
def dorefa(variant: Variant) -> Method:
    """DoReFa-Net (Zhou et al., arXiv:1606.06160, 2016) with 1-bit weights and activations and real-valued gradients.

    Weights: sign(W) · mean|W| of the whole layer, identity straight-through, the scale outside the gradient.
    Activations: clip(x, 0, 1) rounded to {0, 1}, slope 1 for 0 <= x <= 1; at x = 0.5 ours is 1, where the release
    rounds half to even. Static at inference. Both variants are the same; more bits and quantized gradients are not
    here.

    Block: batch norm, convolution, a skip around each pair; with its shortcut (average pooling and a real-valued 1x1
    convolution) it is ours.
    """
    return Method(
        name="dorefa",
        weight=lambda conv: LayerScaledSign(),
        activation=lambda conv: UnitStep(),
        block=BlockSpec(order="NC+", convs_per_skip=2, shortcut="pool_conv", norm_before_classifier=True),
    )
