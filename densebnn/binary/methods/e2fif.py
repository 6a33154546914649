"""E2FIF."""

from __future__ import annotations

from densebnn.binary.activations import Sign
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant
from densebnn.binary.surrogates import Identity, Poly
from densebnn.binary.weights import PlainSign

__all__ = ["e2fif"]


@METHODS.register("e2fif")
def e2fif(variant: Variant) -> Method:
    """E2FIF (Song et al., "Push the Limit of Binarized Deep Imagery Super-resolution", 2022): real-valued flow.

    Weights: sign(W), identity straight-through, no scale (batch norm follows). Activations: sign with slope
    max(0, 2 - 2|x|). Block: convolution, batch norm, skip, and a leaky ReLU (slope 0.1) after every first of two
    convolutions; a skip around each, so that real-valued features flow from end to end. Static at inference.

    Both variants are the same, after the release, whose convolutions also have a bias that batch norm makes void. Its
    networks are for super-resolution and never change shape; the shortcut where ours do (average pooling and a
    real-valued 1x1 convolution) is ours.
    """
    return Method(
        name="e2fif",
        weight=lambda conv: PlainSign(Identity()),
        activation=lambda conv: Sign(Poly()),
        block=BlockSpec(order="CN+P CN+", nonlinearity="leaky_relu", shortcut="pool_conv"),
    )
