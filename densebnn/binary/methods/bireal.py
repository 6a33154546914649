"""Bi-Real Net."""

from densebnn.binary.activations import Sign
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant
from densebnn.binary.surrogates import Clip, Poly
from densebnn.binary.weights import MeanAbsSign

__all__ = ["bireal"]


@METHODS.register("bireal")
def bireal(variant: Variant) -> Method:
    """Bi-Real Net (Liu et al., ECCV 2018): a skip around every binary convolution, and a quadratic surrogate.

    Weights: sign(W) · mean|W|, clip straight-through, the scale outside the gradient. Activations: sign with slope
    max(0, 2 - 2|x|). Block: convolution, batch norm, skip; no other non-linearity; shortcuts are average pooling and a
    real-valued 1x1 convolution. Static at inference. Both variants are the same: the block follows the PyTorch release.
    """
    return Method(
        name="bireal",
        weight=lambda conv: MeanAbsSign(Clip()),
        activation=lambda conv: Sign(Poly()),
        block=BlockSpec(order="CN+", shortcut="pool_conv"),
    )
