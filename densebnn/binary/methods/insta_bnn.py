"""INSTA-BNN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from densebnn.binary.activations import ActivationBinarizer
from densebnn.binary.bits import Bits
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant
from densebnn.binary.surrogates import Clip, Poly, Surrogate
from densebnn.binary.weights import MeanAbsSign

__all__ = ["InstanceSign", "insta_bnn"]


class InstanceSign(ActivationBinarizer):
    """sign(x̂ - (a·E[x̂³] + b)), x̂ the batch-normalised x and E its mean over each channel of each image.

    The third moment joins mean, variance and skewness of the instance. a and b, one per channel, start at zero.

    Args:
        channels: C.
        surrogate: gives the slope at the difference.
    """

    dynamic = "each image has its own thresholds, computed from the third moment of its activations"

    def __init__(self, channels: int, surrogate: Surrogate) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Parameter(torch.zeros(channels, 1, 1))
        self.offset = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Bits:
        """Return sign(x̂ - a·E[x̂³] - b); the gradient also flows through the moment."""
        normalized = self.norm(x)
        wide = normalized.to(torch.promote_types(x.dtype, torch.float32))  # a cube leaves the range of half precision
        moment = wide.pow(3).mean((2, 3), keepdim=True).to(x.dtype)
        return Bits(self.surrogate(normalized - self.gain * moment - self.offset))


@METHODS.register("insta_bnn")
def insta_bnn(variant: Variant) -> Method:
    """INSTA-BNN (Lee et al., "Binary Neural Network with INSTAnce-aware Threshold", ICCV 2023).

    ReActNet whose thresholds follow the statistics of each image. Weights: sign(W) · mean|W|, clip straight-through,
    the scale outside the gradient. Activations: sign(x̂ - (a·E[x̂³] + b)), slope max(0, 2 - 2|·|). Block: convolution,
    batch norm, skip, INSTA-PReLU; shortcuts are average pooling and a real-valued 1x1 convolution. Dynamic at
    inference: thresholds of each image.

    There is no release, so both variants are the same. That thresholds use E[x³] and PReLUs are instance-aware is the
    paper's abstract; the linear form of the threshold on batch-normalised activations is remembered, not checked
    against the paper. That the normalisation is a batch norm of the binarizer's own, without scale and shift, and the
    zero start are ours. The paper's INSTA-Th+ (with a channel attention) and its advice where to leave modules out are
    not here.
    """
    return Method(
        name="insta_bnn",
        weight=lambda conv: MeanAbsSign(Clip()),
        activation=lambda conv: InstanceSign(conv.in_channels, Poly()),
        block=BlockSpec(order="CN+P", nonlinearity="insta_prelu", shortcut="pool_conv"),
    )
