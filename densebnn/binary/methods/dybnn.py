"""DyBNN."""

from __future__ import annotations

from torch import Tensor, nn

from densebnn.binary.activations import ActivationBinarizer
from densebnn.binary.bits import Bits
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant
from densebnn.binary.surrogates import Clip, Poly, Surrogate
from densebnn.binary.weights import MeanAbsSign

__all__ = ["DynamicSign", "dybnn"]


class DynamicSign(ActivationBinarizer):
    """sign(x - θ(x)), with a threshold per image and channel, θ(x) = A2·relu(A1·mean(x) + a1) + a2.

    A2 and a2 start at zero, so it begins as a plain sign. The gradient also flows through the threshold.

    Args:
        channels: C.
        surrogate: gives the slope at x - θ(x).
    """

    dynamic = "each image has its own thresholds, computed from its mean activations"

    def __init__(self, channels: int, surrogate: Surrogate) -> None:
        super().__init__()
        self.surrogate = surrogate
        hidden = max(channels // 8, 4)
        self.squeeze = nn.Linear(channels, hidden)
        self.threshold = nn.Linear(hidden, channels)
        nn.init.zeros_(self.threshold.weight)
        nn.init.zeros_(self.threshold.bias)

    def forward(self, x: Tensor) -> Bits:
        """Return sign(x - θ(x)), the mean taken over (H, W)."""
        threshold = self.threshold(self.squeeze(x.mean((2, 3))).relu())
        return Bits(self.surrogate(x - threshold[..., None, None]))


@METHODS.register("dybnn")
def dybnn(variant: Variant) -> Method:
    """DyBNN (Zhang et al., "Dynamic Binary Neural Network by Learning Channel-wise Thresholds", ICASSP 2022).

    ReActNet whose thresholds and PReLU shifts are chosen for each image. Weights: sign(W) · mean|W|, clip
    straight-through, the scale outside the gradient. Activations: sign(x - θ(x)) with slope max(0, 2 - 2|x - θ(x)|).
    Block: convolution, batch norm, skip, dynamic RPReLU; shortcuts are average pooling and a real-valued 1x1
    convolution. Dynamic at inference: a vector of thresholds per image.

    There is no release, so both variants are the same. That thresholds and shifts depend on globally aggregated
    features is the paper's abstract; the form of θ (average pooling and two linear layers) is remembered, not checked
    against the paper; its width (an eighth of the channels, at least 4), its biases and its zero start are ours.
    """
    return Method(
        name="dybnn",
        weight=lambda conv: MeanAbsSign(Clip()),
        activation=lambda conv: DynamicSign(conv.in_channels, Poly()),
        block=BlockSpec(order="CN+P", nonlinearity="dynamic_rprelu", shortcut="pool_conv"),
    )
