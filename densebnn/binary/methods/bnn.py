"""BNN."""

from dataclasses import replace

from densebnn.binary.activations import Sign
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant
from densebnn.binary.surrogates import Clip
from densebnn.binary.weights import ClampedSign

__all__ = ["bnn"]


@METHODS.register("bnn")
def bnn(variant: Variant) -> Method:
    """BNN (Hubara et al., "Binarized Neural Networks", NeurIPS 2016): plain signs on both sides.

    Weights: sign(W) without a scale, clip straight-through, W clamped to ±1 after each step. Activations: sign, slope 1
    inside ±1. Static at inference. Both variants are the same.

    Block: the paper has chains only (convolution, pooling, batch norm, hardtanh). The residual layout is ours: that of
    a plain residual network with hardtanh for its ReLU, a skip around each pair, strided real-valued 1x1 shortcuts
    (parameter-free in `resnet20`) and a batch norm before the classifier.
    """
    block = BlockSpec(
        order="CN+P",
        convs_per_skip=2,
        nonlinearity="hardtanh",
        shortcut="strided_conv",
        stem_nonlinearity="hardtanh",
        norm_before_classifier=True,
    )
    return Method(
        name="bnn",
        weight=lambda conv: ClampedSign(),
        activation=lambda conv: Sign(Clip()),
        block=block,
        blocks={"resnet20": replace(block, shortcut="zero_pad")},
    )
