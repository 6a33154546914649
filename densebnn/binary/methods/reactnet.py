"""ReActNet."""

from densebnn.binary.activations import RSign
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant
from densebnn.binary.surrogates import Clip, Poly
from densebnn.binary.weights import MeanAbsSign

__all__ = ["reactnet"]


@METHODS.register("reactnet")
def reactnet(variant: Variant) -> Method:
    """ReActNet (Liu et al., ECCV 2020): Bi-Real Net with learned thresholds (RSign) and a shifted PReLU (RPReLU).

    Weights: sign(W) · mean|W|, clip straight-through, the scale outside the gradient. Activations: sign(x - threshold)
    with slope max(0, 2 - 2|x - threshold|). Block: convolution, batch norm, skip, RPReLU; shortcuts are average pooling
    and a real-valued 1x1 convolution. Static at inference. Both variants are the same layer; the paper's two-stage
    recipe is a matter of training.
    """
    return Method(
        name="reactnet",
        weight=lambda conv: MeanAbsSign(Clip()),
        activation=lambda conv: RSign(conv.in_channels, Poly()),
        block=BlockSpec(order="CN+P", nonlinearity="rprelu", shortcut="pool_conv"),
    )
