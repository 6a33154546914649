"""XNOR-Net."""

from densebnn.binary.activations import Sign
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant
from densebnn.binary.scales import InputMagnitude, OutputScale
from densebnn.binary.surrogates import Clip
from densebnn.binary.weights import XNORSign

__all__ = ["xnor"]


@METHODS.register("xnor")
def xnor(variant: Variant) -> Method:
    """XNOR-Net (Rastegari et al., ECCV 2016): scaled signs, and batch norm before each binarization.

    Weights: sign(W) · mean|W|, with the gradient factor 1/n + mean|W|·1[|W| < 1]. Activations: sign, clip surrogate.
    Block: batch norm, convolution; without skips in `alexnet`, which is the release's network. The residual layout, a
    skip around each pair, and its shortcut (average pooling and a real-valued 1x1 convolution) are ours.

    Variants: `as_paper` multiplies each output by the K map of input magnitudes, so it is dynamic at inference;
    `as_released` has no K map, centres the latent weights over the input channels and clamps them to ±1, is static.
    """
    released = variant == "as_released"
    return Method(
        name="xnor",
        weight=lambda conv: XNORSign(centre=released),
        activation=lambda conv: Sign(Clip()),
        scale=lambda conv: OutputScale() if released else InputMagnitude(),
        block=BlockSpec(order="NC+", convs_per_skip=2, shortcut="pool_conv", norm_before_classifier=True),
    )
