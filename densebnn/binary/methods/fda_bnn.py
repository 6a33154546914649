"""FDA-BNN."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from densebnn.binary.activations import ActivationBinarizer
from densebnn.binary.bits import Bits
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant
from densebnn.binary.surrogates import Sine
from densebnn.binary.weights import WeightBinarizer

__all__ = ["AdaptedSign", "AdaptedWeightSign", "NoiseAdaptation", "fda_bnn"]

_REDUCTION = 64


class NoiseAdaptation(nn.Module):
    """α·(relu(t·W1)·W2 + 0.1·sin t): what the series leaves out of the sign, learned (Eq. 13 and 14 of the paper).

    α falls from 0.1 to 0 over half a cosine; it is a buffer. W1 and W2 have a hidden width of size / 64, at least 1.

    Args:
        size: of the vectors t.
    """

    training_only = True
    strength: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        hidden = max(size // _REDUCTION, 1)
        self.squeeze = nn.Parameter(torch.empty(size, hidden).uniform_(-1, 1) / math.sqrt(size))
        self.spread = nn.Parameter(torch.empty(hidden, size).uniform_(-1, 1) / math.sqrt(hidden))
        self.register_buffer("strength", torch.tensor(0.1))

    def forward(self, t: Tensor) -> Tensor:
        """(..., size) -> (..., size)."""
        return self.strength * ((t @ self.squeeze).relu() @ self.spread + 0.1 * t.sin())

    def on_progress(self, progress: float) -> None:
        """Set α for `progress` in [0, 1]."""
        self.strength.fill_(0.05 * (1 + math.cos(math.pi * progress)))


class AdaptedSign(ActivationBinarizer):
    """sign(x) with the slope of the series; training adds the noise adaptation of each position's vector of channels.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.surrogate = Sine()
        self.noise = NoiseAdaptation(channels)

    def forward(self, x: Tensor) -> Bits:
        """Return sign(x), in training shifted by the noise adaptation."""
        shift = self.noise(x.movedim(1, -1)).movedim(-1, 1) if self.training else None
        return Bits(self.surrogate(x), shift=shift)


class AdaptedWeightSign(WeightBinarizer):
    """sign(W) · mean |W| of the whole layer; training adds the noise adaptation of each filter to the signs.

    The gradient is not multiplied by the scale.

    Args:
        size: number of weights of a filter.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.surrogate = Sine()
        self.noise = NoiseAdaptation(size)

    def forward(self, weight: Tensor) -> Bits:
        """Return sign(W) with scale mean |W| of shape (1, 1, 1, 1), in training shifted by the noise adaptation."""
        scale = weight.detach().abs().mean((0, 1, 2, 3), keepdim=True)
        shift = None
        if self.training:
            noise = self.noise(weight.flatten(1)).view_as(weight)
            shift = Bits(noise, scale, scale_gradient=False).value()
        return Bits(self.surrogate(weight), scale, shift, scale_gradient=False)


@METHODS.register("fda_bnn")
def fda_bnn(variant: Variant) -> Method:
    """FDA-BNN (Xu et al., "Learning Frequency Domain Approximation for Binary Neural Networks", NeurIPS 2021).

    Weights: sign(W) · mean|W| of the whole layer, which is DoReFa-Net's and the paper's baseline, the scale outside the
    gradient. Activations: sign. Both with the slope of a Fourier series of the sign, (4w/π)·Σ_{i=0..m} cos((2i+1)·w·x)
    inside ±1, w = 0.1, m from 9 to 18. In training both have the noise adaptation α·(relu(t·W1)·W2 + 0.1·sin t) beside
    the sign, t a filter or the channels at a position, a hidden width of a 64th. Static at inference.

    Block: convolution, PReLU, batch norm, skip, a skip around every convolution, shortcuts of average pooling and a
    real-valued 1x1 convolution: the paper's Bi-Real Net with PReLU. In `resnet20`, as released, a skip around each
    pair, one slope for all channels, and subsampling with zero channels as shortcut.

    Both variants are the same. The release (for MindSpore) can only evaluate a ResNet-20; it has a ReLU before the last
    pooling, which is not here. Not in the paper: w, the cut at ±1, along which dimension activations are vectors, and
    that α begins at 0.1 and falls over half a cosine; these follow a public re-implementation in the benchmark BiBench.
    The paper builds ResNet-18 on Bi-Real Net, whose scale is that of each filter; here it is the layer's everywhere. Of
    its training on ImageNet it says Adam, 0.001 and no weight decay, but neither length nor batch size.
    """
    return Method(
        name="fda_bnn",
        weight=lambda conv: AdaptedWeightSign(conv.weight[0].numel()),
        activation=lambda conv: AdaptedSign(conv.in_channels),
        block=BlockSpec(order="CPN+", nonlinearity="prelu", shortcut="pool_conv"),
        blocks={
            "resnet20": BlockSpec(order="CPN+", convs_per_skip=2, nonlinearity="shared_prelu", shortcut="zero_pad")
        },
    )
