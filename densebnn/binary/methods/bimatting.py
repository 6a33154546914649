"""BiMatting."""

from __future__ import annotations

import torch
from torch import Tensor

from densebnn.binary.activations import RSign
from densebnn.binary.bits import Bits
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant
from densebnn.binary.surrogates import Clip, Surrogate
from densebnn.binary.weights import WeightBinarizer, balanced

__all__ = ["CentredSign", "bimatting"]

_FILTER = (1, 2, 3)


class CentredSign(WeightBinarizer):
    """sign(W - mean) scaled by mean|W - mean| of each filter; the scale and its factor are not in the gradient.

    The gradient flows through the centring: each filter's sums to zero.
    """

    def __init__(self, surrogate: Surrogate) -> None:
        super().__init__()
        self.surrogate = surrogate

    def forward(self, weight: Tensor) -> Bits:
        """Return sign(W - mean) with scale mean|W - mean| of shape (C_out, 1, 1, 1)."""
        centred = weight - weight.mean(_FILTER, keepdim=True)
        scale = centred.detach().abs().mean(_FILTER, keepdim=True)
        return Bits(self.surrogate(centred), scale, scale_gradient=False)

    @torch.no_grad()
    def restore(self, bits: Bits) -> Tensor:
        """Return centred filters of two values, whose mean magnitude is the scale."""
        latent = balanced(bits.sign)
        return Bits(latent / latent.abs().mean(_FILTER, keepdim=True), bits.scale).value()


@METHODS.register("bimatting")
def bimatting(variant: Variant) -> Method:
    """BiMatting (Qin et al., "Efficient Video Matting via Binarization", NeurIPS 2023): its binary layers.

    Weights: sign of the filter-wise centred W times its mean magnitude, clip straight-through on the centred W, the
    scale outside the gradient, the centring inside. Activations: sign(x - threshold), a learned threshold per channel,
    with a clip surrogate. Block: that of ReActNet, convolution, batch norm, skip, RPReLU; shortcuts are average pooling
    and a real-valued 1x1 convolution. In `bimatting_encoder`, the paper's encoder, shrinkable blocks: they widen two or
    four times, or shrink to half the channels, with shortcuts without parameters (repeated, or the mean of both
    halves), and a pooled skip goes around the two blocks that halve the resolution and shrink. Static at inference,
    layer by layer.

    Both variants are the same, after the release; its encoder normalises images itself, here the data does. Not here:
    the sparse-assisted decoder, which masks convolutions by the image, its recurrent units, the refiner, and the four
    stages of training with the losses of matting.
    """
    return Method(
        name="bimatting",
        weight=lambda conv: CentredSign(Clip()),
        activation=lambda conv: RSign(conv.in_channels, Clip()),
        block=BlockSpec(order="CN+P", nonlinearity="rprelu", shortcut="pool_conv"),
    )
