"""AdaBin."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from densebnn.binary.activations import ActivationBinarizer
from densebnn.binary.bits import Bits
from densebnn.binary.method import METHODS, BlockSpec, Method, Variant
from densebnn.binary.surrogates import EDE, Poly, Surrogate
from densebnn.binary.weights import WeightBinarizer, balanced

__all__ = ["AdaptiveWeightSet", "LearnedActivationSet", "adabin"]

_FILTER = (1, 2, 3)


class AdaptiveWeightSet(WeightBinarizer):
    """Two values per filter, {β - α, β + α}: β its mean, α its (biased) standard deviation, both in the gradient."""

    def __init__(self, surrogate: Surrogate) -> None:
        super().__init__()
        self.surrogate = surrogate

    def forward(self, weight: Tensor) -> Bits:
        """Return sign((W - β)/α) with scale α and shift β of shape (C_out, 1, 1, 1)."""
        centre = weight.mean(_FILTER, keepdim=True)
        distance = (weight - centre).square().mean(_FILTER, keepdim=True).sqrt()
        return Bits(self.surrogate((weight - centre) / distance), distance, centre)

    @torch.no_grad()
    def restore(self, bits: Bits) -> Tensor:
        """Return filters of two values, with mean β and standard deviation α."""
        return Bits(balanced(bits.sign), bits.scale, bits.shift).value()


class LearnedActivationSet(ActivationBinarizer):
    """Activations of a layer take two learned values around a learned threshold β; α starts at 1 and β at 0.

    Args:
        surrogate: gives the slope at (x - β)/α.
        scale_centre: the values are α·(±1 + β), as the release computes them; otherwise α·(±1) + β.
    """

    def __init__(self, surrogate: Surrogate, *, scale_centre: bool) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.scale_centre = scale_centre
        self.distance = nn.Parameter(torch.tensor(1.0))
        self.centre = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Bits:
        """Return sign((x - β)/α) with scale α, and shift β (α·β with `scale_centre`)."""
        shift = self.distance * self.centre if self.scale_centre else self.centre
        return Bits(self.surrogate((x - self.centre) / self.distance), self.distance, shift)


@METHODS.register("adabin")
def adabin(variant: Variant) -> Method:
    """AdaBin (Tu et al., "Improving Binary Neural Networks with Adaptive Binary Sets", ECCV 2022).

    Weights: {β - α, β + α} with mean and (biased) standard deviation of each filter, which are in the gradient; slope
    of IR-Net's estimator, t from 0.001 to 10 as in the release's training scripts (the paper's range was not checked).
    Activations: two learned values per layer, slope max(0, 2 - 2|x|). Block: convolution, batch norm, skip, Maxout,
    Maxout also after the stem, a skip around every convolution; shortcuts are average pooling and a real-valued 1x1
    convolution, parameter-free in `resnet20`, strided in `resnet18_cifar`; batch norm before the classifier.

    Static at inference: one binary convolution, one sum of signs, and a correction at zero-padded borders.

    Variants: activations are α·(±1) + β `as_paper`, α·(±1 + β) `as_released`. The authors call the latter a mistake in
    the code; the released checkpoints need it.
    """
    block = BlockSpec(
        order="CN+P",
        nonlinearity="maxout",
        shortcut="pool_conv",
        stem_nonlinearity="maxout",
        norm_before_classifier=True,
    )
    return Method(
        name="adabin",
        weight=lambda conv: AdaptiveWeightSet(EDE(1e-3, 10.0)),
        activation=lambda conv: LearnedActivationSet(Poly(), scale_centre=variant == "as_released"),
        block=block,
        blocks={
            "resnet20": replace(block, shortcut="zero_pad"),
            "resnet18_cifar": replace(block, shortcut="strided_conv"),
        },
    )
