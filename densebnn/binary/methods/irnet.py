"""IR-Net."""

from densebnn.binary.activations import Sign
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant
from densebnn.binary.surrogates import EDE
from densebnn.binary.weights import StandardizedSign

__all__ = ["irnet"]


@METHODS.register("irnet")
def irnet(variant: Variant) -> Method:
    """IR-Net (Qin et al., CVPR 2020): standardised weights (Libra-PB) and a surrogate that sharpens (EDE).

    Weights: sign of the filter-wise standardised W with a power-of-two scale. Activations: sign; both with slope
    k·t·(1 - tanh²(t·x)). Block: convolution, batch norm, skip, hardtanh, a skip around every convolution (around each
    pair in `resnet18_cifar`, which has no hardtanh after the stem, as released); shortcuts are strided real-valued 1x1
    convolutions, parameter-free in `resnet20`; batch norm before the classifier. Static at inference.

    Variants: t runs from 0.1 to 10 `as_paper` (from memory of the paper, not checked against it), from 0.001 to 10
    `as_released` (the release's ResNet-20 script).
    """
    t_min = 1e-1 if variant == "as_paper" else 1e-3
    block = BlockSpec(
        order="CN+P",
        nonlinearity="hardtanh",
        shortcut="strided_conv",
        stem_nonlinearity="hardtanh",
        norm_before_classifier=True,
    )
    return Method(
        name="irnet",
        weight=lambda conv: StandardizedSign(EDE(t_min)),
        activation=lambda conv: Sign(EDE(t_min)),
        block=block,
        blocks={
            "resnet20": BlockSpec(
                order="CN+P",
                nonlinearity="hardtanh",
                shortcut="zero_pad",
                stem_nonlinearity="hardtanh",
                norm_before_classifier=True,
            ),
            "resnet18_cifar": BlockSpec(
                order="CN+P",
                convs_per_skip=2,
                nonlinearity="hardtanh",
                shortcut="strided_conv",
                norm_before_classifier=True,
            ),
        },
    )
